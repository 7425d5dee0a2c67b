"""A catalog of real clips on the tiny models: hits, failures set aside, plans."""

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from pyarrow import parquet

from effivmt.catalog import Catalog
from effivmt.errors import EffiVMTError
from effivmt.media.video import read_frames
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.catalog_run import failed_before, process_clip, run_catalog
from effivmt.pipeline.catalog_table import NAME, write_catalog_table
from effivmt.pipeline.outcomes import RunSummary
from effivmt.pipeline.plan import plan_clip
from effivmt.pipeline.stage_run import run_stage_over
from effivmt.pipeline.stages import STAGES
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store


def run(workspace: Workspace, catalog: Catalog, out: Path) -> RunSummary:
    return run_catalog(Workspace(workspace.store, workspace.params), catalog, out)


def statuses(summary: RunSummary) -> dict[str, str]:
    return {outcome.clip: outcome.status for outcome in summary.clips}


def table(out: Path) -> list[list[str]]:
    with (out / "quarantine.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_one_bad_clip_is_set_aside(workspace: Workspace, catalog: Catalog, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run(workspace, catalog, out)
    assert statuses(first) == {"one": "done", "bad": "failed", "two": "done"}
    assert table(out)[0] == ["clip", "stage", "reason"] and table(out)[1][:2] == ["bad", "ingest"] and table(out)[1][2]
    assert failed_before(out) == ["bad"]
    assert json.loads((out / "run.json").read_text(encoding="utf-8")) == json.loads(json.dumps(asdict(first)))
    report = (out / "one" / "report.html").stat()

    again = run(workspace, catalog, out)
    assert statuses(again) == {"one": "hit", "bad": "failed", "two": "hit"}
    assert {it.clip: it.notices for it in again.clips} == {it.clip: it.notices for it in first.clips}
    assert any(it.notices for it in again.clips)
    assert (out / "one" / "report.html").stat().st_mtime_ns == report.st_mtime_ns  # an up-to-date folder stays

    (catalog.path.parent / "bad.mp4").write_bytes((catalog.path.parent / "a.mp4").read_bytes())
    mended = run(workspace, catalog.only(("bad",)), out)
    # The others keep what was said of them.
    assert statuses(mended) == {"one": "hit", "bad": "done", "two": "hit"} and (out / "bad" / "video-1.mp4").is_file()
    assert (mended.done, mended.hit, mended.failed) == (1, 0, 0) and table(out)[1:] == []


def test_a_clip_has_its_own_seed(workspace: Workspace, catalog: Catalog, tmp_path: Path) -> None:
    run(workspace, catalog, tmp_path / "out")
    adapters = [(tmp_path / "out" / name / "adapter" / "temporal.safetensors").read_bytes() for name in ("one", "two")]
    assert adapters[0] != adapters[1]


def test_a_damaged_output_is_written_again(workspace: Workspace, catalog: Catalog, tmp_path: Path) -> None:
    clip, out = catalog.clips[0], tmp_path / "out"
    process_clip(workspace, clip, out)
    video = out / "one" / "video-1.mp4"
    content = video.read_bytes()
    video.write_bytes(content[:-1])
    assert process_clip(workspace, clip, out).status == "hit"
    assert video.read_bytes() == content


def test_an_unforeseen_error_fails_its_clip_only(workspace: Workspace, catalog: Catalog, tmp_path: Path) -> None:
    class Broken(Callback):
        def on_stage_start(self, stage: str) -> None:
            if stage == "spatial":
                raise KeyError("no such thing")

    outcome = process_clip(replace(workspace, callback=Broken()), catalog.clips[0], tmp_path / "out")
    assert outcome.status == "failed" and outcome.stage == "spatial"
    assert outcome.reason.startswith("KeyError: 'no such thing'") and "test_batch.py" in outcome.reason


def test_no_last_run_to_retry(tmp_path: Path) -> None:
    with pytest.raises(EffiVMTError, match="no run has ended there"):
        failed_before(tmp_path)


class TestPlan:
    def test_of_an_empty_store(self, workspace: Workspace, catalog: Catalog) -> None:
        plan = plan_clip(workspace, catalog.clips[0])
        assert [(step.stage, step.action) for step in plan] == [
            ("ingest", "to do"),
            *((stage, "waits") for stage in STAGES[1:]),
        ]
        assert plan[0].why == "never computed" and plan[1].why == "for ingest"
        assert not workspace.store.root.exists() or not list(workspace.store.root.glob("ingest/*"))

    def test_tells_what_changed(self, workspace: Workspace, catalog: Catalog, tmp_path: Path) -> None:
        clip = catalog.clips[0]
        process_clip(workspace, clip, tmp_path / "out")
        assert {step.action for step in plan_clip(workspace, clip)} == {"hit"}
        params = workspace.params
        heavier = params.model_copy(update={"temporal": params.temporal.model_copy(update={"motion_weight": 2.0})})
        plan = plan_clip(Workspace(Store(workspace.store.root), heavier), clip)
        assert [step.action for step in plan] == ["hit"] * 3 + ["to do", "waits", "waits"]
        assert plan[3].why == "params.motion_weight: 1.0 -> 2.0"
        forced = Workspace(workspace.store, params, force=frozenset({"render"}))
        assert [(s.action, s.why) for s in plan_clip(forced, clip)][4] == ("to do", "forced")

    def test_of_a_missing_file(self, workspace: Workspace, catalog: Catalog) -> None:
        catalog.clips[0].video.unlink()
        plan = plan_clip(workspace, catalog.clips[0])
        assert plan[0].action == "fails" and "does not exist" in plan[0].why


def test_the_inventory_holds_probe_facts(catalog: Catalog, tmp_path: Path) -> None:
    path = write_catalog_table(catalog, tmp_path / "out")
    assert path == tmp_path / "out" / NAME
    good, bad, seeded = parquet.read_table(path).to_pylist()
    assert (good["width"], good["height"], good["codec"], good["video"]) == (64, 64, "h264", "a.mp4")
    assert (
        len(good["sha256"]) == 64 and good["fault"] is None and good["prompts"] == ["a green circle", "a yellow star"]
    )
    assert bad["fault"] and bad["width"] is None and seeded["seed"] == 5
    before = path.stat().st_mtime_ns
    assert write_catalog_table(catalog, tmp_path / "out").stat().st_mtime_ns == before
    (tmp_path / "a.mp4").write_bytes(b"changed")
    assert parquet.read_table(write_catalog_table(catalog, tmp_path / "out")).to_pylist()[0]["fault"]


def test_a_short_clip_is_as_long_as_it_can_be(workspace: Workspace, catalog: Catalog, tmp_path: Path) -> None:
    (clip,) = catalog.only(("one",)).clips
    short = replace(catalog, clips=(clip.model_copy(update={"end": 1.2}),))
    outcome = process_clip(workspace, short.clips[0], tmp_path / "out")
    assert (outcome.status, outcome.reason) == ("done", "")
    assert outcome.taken.startswith(
        "9 frames (not the 17 asked for: the video is too short) at 8 fps, 0.00 to 1.12 s of"
    )
    folder = tmp_path / "out" / "one"
    assert {len(read_frames(path)[0]) for path in folder.glob("*.mp4")} == {9}
    record = json.loads((folder / "transfer.json").read_text(encoding="utf-8"))
    assert record["video"]["excerpt"]["num_frames"] == 9
    assert outcome.taken in (folder / "report.html").read_text(encoding="utf-8")
    assert {stage.action for stage in plan_clip(workspace, short.clips[0])} == {"hit"}
    summary = run_stage_over(workspace, short, "evaluate", tmp_path / "stages")
    assert summary.clips[0].status == "hit"
