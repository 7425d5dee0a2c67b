"""A real `mlflow server` on loopback over an SQLite store, and the out folders of a small catalog."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from changing import PROMPTS, STEPS
from loopback import Server, serve
from mlflow.tracking import MlflowClient
from prefect.testing.utilities import prefect_test_harness

from effivmt.catalog import load_catalog
from effivmt.config import Params
from effivmt.pipeline.catalog_run import run_catalog
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store

TUNING = {"rank": 2, "batch": 2}


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite store of MLflow's, made once: its hundred migrations take seconds. Copy it."""
    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[Server]:
    """The session's server."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(database, folder / "mlflow.db")
    with serve(folder) as running:
        yield running


@pytest.fixture(scope="session")
def prefect() -> Iterator[None]:
    """A Prefect server and database for the session."""
    with prefect_test_harness(120):
        yield


@pytest.fixture(scope="session")
def tiny_params(backbone_folder: Path, scorer_folder: Path) -> Params:
    """Params of a transfer that takes seconds."""
    return Params.model_validate(
        {
            "backbone": {"path": str(backbone_folder), "max_sequence_length": 16},
            "ingest": {"num_frames": 17, "height": 32, "width": 32, "fps": 8},
            "sampling": {"mode": "latent", "frames": 9, "phases": 2},
            "heads": {"noise_levels": [0.5], "alpha": 1.0},
            "spatial": TUNING | {"steps": STEPS["spatial"]},
            "temporal": TUNING | {"steps": STEPS["temporal"]},
            "render": {"steps": 2},
            "evaluate": {"scorer": str(scorer_folder)},
        }
    )


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_params: Params, sample_video: Path) -> Path:
    """The folder of a catalog's run without an engine: clips `left` and `right` are done, `gone` has failed.

    Tests must leave it alone: copy it.
    """
    folder = tmp_path_factory.mktemp("made")
    shutil.copyfile(sample_video, folder / "zigzag.mp4")
    rows = [f"{clip},{video},a red square,{' | '.join(PROMPTS)}" for clip, video in _CLIPS.items()]
    (folder / "clips.csv").write_text("\n".join(["clip,video,caption,prompts", *rows]) + "\n", encoding="utf-8")
    work = Workspace(Store(folder / "store"), tiny_params)
    run_catalog(work, load_catalog(folder / "clips.csv"), folder / "out")
    return folder


_CLIPS = {"left": "zigzag.mp4", "gone": "gone.mp4", "right": "zigzag.mp4"}
