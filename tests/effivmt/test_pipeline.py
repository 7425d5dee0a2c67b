"""One step over a catalog on the tiny models: files, tables, and the same bytes again."""

import csv
import json
from pathlib import Path

from effivmt.catalog import Catalog
from effivmt.config import Params
from effivmt.pipeline.stage_run import run_stage_over
from effivmt.pipeline.stages import STAGES
from effivmt.pipeline.tables import thinned, write_metrics
from effivmt.pipeline.workspace import Workspace
from effivmt.store.digests import sha256_file
from effivmt.store.store import Store


def run(work: Workspace, catalog: Catalog, stage: str, out: Path) -> dict[str, str]:
    """Runs a step as a process of its own would; the status of every clip."""
    summary = run_stage_over(Workspace(work.store, work.params), catalog, stage, out)
    return {outcome.clip: outcome.status for outcome in summary.clips}


def digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def test_every_step_leaves_the_same_bytes_from_any_store(
    workspace: Workspace, catalog: Catalog, params: Params, tmp_path: Path
) -> None:
    for stage in STAGES:
        second = "hit" if stage == "ingest" else "done"  # both clips are the same file
        assert run(workspace, catalog, stage, tmp_path / "out") == {"one": "done", "bad": "failed", "two": second}
        assert run(workspace, catalog, stage, tmp_path / "out") == {"one": "hit", "bad": "failed", "two": "hit"}
    placed = digests(tmp_path / "out")
    other = Workspace(Store(tmp_path / "elsewhere" / "store"), params)
    assert run(other, catalog, "evaluate", tmp_path / "again")["one"] == "done"  # it computes what comes before
    for stage in STAGES:
        run(other, catalog, stage, tmp_path / "again")
    assert digests(tmp_path / "again") == placed

    expected = {"one/video-1.mp4", "one/video-2.mp4", "one/video-2-without-adapter.mp4", "two/video-1.mp4"}
    assert expected <= set(digests(tmp_path / "out" / "render"))
    listed = json.loads((tmp_path / "out" / "temporal" / "files.json").read_text(encoding="utf-8"))
    assert placed["temporal/one/adapter/temporal.safetensors"] == listed["one"]["adapter/temporal.safetensors"]
    assert list(listed) == ["one", "two"]
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in (tmp_path / "out").rglob("*.*"))

    with (tmp_path / "out" / "temporal" / "losses.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["clip"], row["loss"], row["step"]) for row in rows} == {
        (clip, loss, str(step)) for clip in ("one", "two") for loss in ("denoising", "motion") for step in (1, 2, 3)
    }
    means = [json.loads((tmp_path / "out" / "metrics" / name).read_text()) for name in ("mean.json", "clips/one.json")]
    assert means[0].keys() == means[1].keys() and means[0] != means[1]


def test_what_befalls_the_outputs_never_reaches_the_store(
    workspace: Workspace, catalog: Catalog, tmp_path: Path
) -> None:
    catalog = catalog.only(("one", "two"))
    run(workspace, catalog, "ingest", tmp_path / "out")
    folder = tmp_path / "out" / "ingest"
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(b"x")
    (folder / "one" / "mine.txt").write_text("stays", encoding="utf-8")
    artifacts = [path.parent for path in workspace.store.root.glob("ingest/*/artifact.json")]
    assert len(artifacts) == 1
    for name, entry in json.loads((artifacts[0] / "artifact.json").read_text())["files"].items():
        assert sha256_file(artifacts[0] / name) == entry["sha256"]

    assert run(workspace, catalog.only(("one",)), "ingest", tmp_path / "out") == {"one": "hit"}
    listed = json.loads((folder / "files.json").read_text(encoding="utf-8"))
    assert digests(folder / "one") == listed["one"] | {"mine.txt": sha256_file(folder / "one" / "mine.txt")}
    assert not (folder / "two").exists()


def test_curves_are_averaged_over_equal_stretches() -> None:
    assert thinned([]) == []
    assert thinned([3.0, 1.0]) == [(1, 3.0), (2, 1.0)]
    long = thinned([float(i) for i in range(1000)])
    assert len(long) == 100 and long[0] == (10, 4.5) and long[-1] == (1000, 994.5)
    uneven = thinned([1.0] * 250)
    assert len(uneven) == 100 and uneven[-1] == (250, 1.0)


def test_metrics_are_means_over_videos_and_then_clips(tmp_path: Path) -> None:
    videos = {
        "a": [{"adapter": {"x": 1.0}, "baseline": {"x": 0.0}}, {"adapter": {"x": 3.0}, "baseline": {"x": 0.0}}],
        "b": [{"adapter": {"x": 4.0}, "baseline": {"x": 1.0}}],
    }
    for clip, rows in videos.items():
        (tmp_path / clip).mkdir()
        (tmp_path / clip / "metrics.json").write_text(json.dumps(rows), encoding="utf-8")
    summary = tmp_path / "summary"
    write_metrics(tmp_path, summary, ["a", "b"])
    assert json.loads((summary / "mean.json").read_text()) == {"x": 3.0, "without_adapter": {"x": 0.5}}
    assert json.loads((summary / "clips" / "a.json").read_text()) == {"x": 2.0, "without_adapter": {"x": 0.0}}
    with (tmp_path / "metrics.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[-2:] == [
            ["all clips", "with adapter", "x", "3.0"],
            ["all clips", "without adapter", "x", "0.5"],
        ]
    write_metrics(tmp_path, summary, ["b"])
    assert [path.name for path in (summary / "clips").iterdir()] == ["b.json"]
