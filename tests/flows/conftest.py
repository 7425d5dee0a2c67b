"""A folder with a params file over the tiny models, and a first transfer in it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from command import CAPTION, PROMPTS, Ended, effivmt


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, backbone_folder: Path, scorer_folder: Path) -> Path:
    """A folder with params.yaml for the random models; a transfer takes seconds."""
    folder = tmp_path_factory.mktemp("project")
    tuning = {"rank": 2, "steps": 3, "batch": 2, "save_every": 1}
    params = {
        "backbone": {"path": str(backbone_folder), "max_sequence_length": 16},
        "ingest": {"num_frames": 17, "height": 32, "width": 32, "fps": 8},
        "sampling": {"mode": "latent", "frames": 9, "phases": 2},
        "heads": {"noise_levels": [0.5], "alpha": 1.0},
        "spatial": dict(tuning),
        "temporal": dict(tuning),
        "render": {"steps": 2},
        "evaluate": {"scorer": str(scorer_folder)},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def transfer_arguments(project: Path, sample_video: Path) -> Callable[..., list[str]]:
    """Arguments of a transfer of the sample clip without an engine, plus more; prompts default to both."""

    def arguments(*more: object, prompts: tuple[str, ...] = PROMPTS) -> list[str]:
        fixed = ["transfer", sample_video, "--caption", CAPTION, "--engine", "local"]
        fixed += ["--params", project / "params.yaml", "--store", project / "store"]
        asked = [word for prompt in prompts for word in ("--prompt", prompt)]
        return [str(word) for word in (*fixed, *asked, *more)]

    return arguments


@pytest.fixture(scope="session")
def transferred(project: Path, transfer_arguments: Callable[..., list[str]]) -> Ended:
    """The first transfer of the sample clip, into the project's `out`."""
    return effivmt(*transfer_arguments("--out", project / "out"))
