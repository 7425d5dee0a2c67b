"""Catalogs for the tiny models: one of good and bad clips, and a run of one whose texts are hostile."""

import json
from pathlib import Path

import pytest
from webpage import BROKEN_OUT

from effivmt.catalog import Catalog, load_catalog
from effivmt.config import Params
from effivmt.pipeline.catalog_run import run_catalog
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store


@pytest.fixture
def catalog(tmp_path: Path, sample_video: Path) -> Catalog:
    """A good clip, one whose file is damaged, and one with a seed of its own."""
    (tmp_path / "a.mp4").write_bytes(sample_video.read_bytes())
    (tmp_path / "bad.mp4").write_bytes(sample_video.read_bytes()[:900])
    (tmp_path / "c.csv").write_text(
        "clip,video,caption,prompts,seed\n"
        "one,a.mp4,a red square,a green circle | a yellow star,\nbad,bad.mp4,a red square,a green circle,\n"
        "two,a.mp4,a red square,a green circle,5\n",
        encoding="utf-8",
    )
    return load_catalog(tmp_path / "c.csv")


@pytest.fixture(scope="session")
def run_folder(
    tmp_path_factory: pytest.TempPathFactory, backbone_folder: Path, scorer_folder: Path, sample_video: Path
) -> Path:
    """The out folder of a run of two clips, `one` and `two`, of different classes; the video of a third is missing."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "a.mp4").write_bytes(sample_video.read_bytes())
    shared = {"video": "a.mp4", "caption": "a red square", "prompts": ["a green circle", BROKEN_OUT]}
    rows = [shared | {"clip": name, "seed": seed, "class": "plain"} for seed, name in enumerate(("one", "two"))]
    rows[1] |= {"class": BROKEN_OUT, "caption": BROKEN_OUT}
    lost = {"clip": "lost", "video": f"{BROKEN_OUT[9:]}.mp4", "caption": "a \"lost\" & 'gone' clip"}
    rows.append(shared | lost)
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    tuning = {"rank": 2, "steps": 3, "batch": 2}
    params = {
        "backbone": {"path": str(backbone_folder), "max_sequence_length": 64},
        "ingest": {"num_frames": 17, "height": 32, "width": 32, "fps": 8},
        "sampling": {"mode": "latent", "frames": 9, "phases": 2},
        "heads": {"noise_levels": [0.5], "alpha": 1.0},
        "spatial": tuning,
        "temporal": tuning,
        "render": {"steps": 2},
        "evaluate": {"scorer": str(scorer_folder)},
    }
    work = Workspace(Store(folder / "store"), Params.model_validate(params))
    summary = run_catalog(work, load_catalog(folder / "c.jsonl"), folder / "out")
    assert [outcome.status for outcome in summary.clips] == ["done"] * 2 + ["failed"], summary
    return folder / "out"
