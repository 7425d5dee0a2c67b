"""The commands and runners besides `transfer` meet damage as it does: one line, and the results of a whole store."""

import json
import shutil
from pathlib import Path

import pytest
from harm import Ear, Made, harm, outputs

from effivmt.benchmark.cells import run_job
from effivmt.benchmark.methods import METHODS
from effivmt.benchmark.runner import plan
from effivmt.catalog import Catalog, Clip, load_catalog
from effivmt.config import Params
from effivmt.pipeline.catalog_run import process_clip
from effivmt.pipeline.plan import plan_clip
from effivmt.pipeline.stage_run import run_stage_over
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store


@pytest.fixture
def catalog(tmp_path: Path, clip: Clip) -> Catalog:
    video = shutil.copy(clip.video, tmp_path)
    rows = f"clip,video,caption,prompts\n{clip.clip},{Path(video).name},{clip.caption},{clip.prompts[0]}\n"
    (tmp_path / "c.csv").write_text(rows)
    return load_catalog(tmp_path / "c.csv")


def test_a_clip_of_a_catalog(made: Made, params: Params, catalog: Catalog, tmp_path: Path) -> None:
    store, ear = made.copy(tmp_path), Ear()
    damaged = made.artifact(store, "temporal") / "adapter/spatial.safetensors"
    harm(damaged, "flip")
    work = Workspace(Store(store), params, ear)
    planned = {step.stage: (step.action, step.why) for step in plan_clip(work, catalog.clips[0])}
    assert planned["spatial"] == ("hit", "")
    assert planned["temporal"][0] == "to do" and "spatial.safetensors has changed" in planned["temporal"][1]
    shutil.rmtree(store)
    store = made.copy(tmp_path)
    harm(damaged, "flip")
    outcome = process_clip(work, catalog.clips[0], tmp_path / "out")
    assert (outcome.status, outcome.reason) == ("done", "")
    assert set(outcome.stages) - set(outcome.hits) == {"temporal"}
    assert ear.damaged == [damaged]
    assert outputs(tmp_path / "out") == made.outputs()


def test_one_stage_over_a_catalog(made: Made, params: Params, catalog: Catalog, tmp_path: Path) -> None:
    """As DVC runs it: every file of the stage's artifact is copied."""
    store, placed = made.copy(tmp_path), {}
    for number, name in enumerate(("probe.json", "dense.safetensors", "dense.safetensors")):
        ear = Ear()
        if number < 2:
            harm(made.artifact(store, "ingest") / name, "flip")
        summary = run_stage_over(Workspace(Store(store), params, ear), catalog, "ingest", tmp_path / f"{number}")
        assert (summary.failed, summary.done) == ((0, 1) if number < 2 else (0, 0))
        assert [path.name for path in ear.damaged] == ([name] if number < 2 else [])
        placed[number] = json.loads((tmp_path / f"{number}/ingest/files.json").read_text())
    assert placed[0] == placed[1] == placed[2] == {"zigzag": dict(made.result.ingested.files)}


def test_a_job_of_a_comparison(made: Made, params: Params, catalog: Catalog, tmp_path: Path) -> None:
    store, ear = made.copy(tmp_path), Ear()
    (job,) = plan([METHODS["reconstruction"]], catalog.clips, params=None, peers=None, overrides=[])
    job = type(job)(job.method, params, job.clip)
    whole = run_job(Workspace(Store(store), params), job)
    assert not whole.errors
    for stage in ("reconstruct", "evaluate"):
        shutil.rmtree(store / stage)
    damaged = made.artifact(store, "ingest") / "dense.safetensors"
    harm(damaged, "flip")
    again = run_job(Workspace(Store(store), params, ear), job)
    assert ear.damaged == [damaged] and not again.errors
    assert [cell.metrics for cell in again.cells] == [cell.metrics for cell in whole.cells]


@pytest.mark.parametrize("stage", ["spatial", "temporal"])
def test_a_damaged_checkpoint_begins_anew(
    made: Made, params: Params, catalog: Catalog, tmp_path: Path, stage: str
) -> None:
    class Killed(Ear):
        def on_stage_progress(self, at: str, done: int, total: int) -> None:
            if (at, done) == (stage, 2):
                raise KeyboardInterrupt

    store, ear = made.copy(tmp_path), Ear()
    shutil.rmtree(made.artifact(store, stage))
    with pytest.raises(KeyboardInterrupt):
        process_clip(Workspace(Store(store), params, Killed()), catalog.clips[0], tmp_path / "out")
    (checkpoint,) = store.glob("scratch/*/*.safetensors")
    harm(checkpoint, "flip")
    outcome = process_clip(Workspace(Store(store), params, ear), catalog.clips[0], tmp_path / "out")
    assert (outcome.status, ear.damaged, ear.ran) == ("done", [checkpoint], [stage])
    assert outputs(tmp_path / "out") == made.outputs()
    assert not list(store.glob("scratch/*"))


def test_damaged_backbone_digests(made: Made, params: Params, catalog: Catalog, tmp_path: Path) -> None:
    store, ear = made.copy(tmp_path), Ear()
    harm(store / "backbones.json", "flip")
    outcome = process_clip(Workspace(Store(store), params, ear), catalog.clips[0], tmp_path / "out")
    assert (outcome.status, ear.damaged) == ("hit", [store / "backbones.json"])
    assert (store / "backbones.json").read_bytes() == (made.folder / "store/backbones.json").read_bytes()
