"""A full disk ends a run with one line, whoever was writing; when there is room, a rerun ends with the same bytes."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from harm import Ear, Made, contents, outputs
from small_disk import SmallDisk

from effivmt.catalog import Clip, load_catalog
from effivmt.config import Params
from effivmt.errors import DiskFullError
from effivmt.pipeline.api import transfer
from effivmt.pipeline.catalog_run import run_catalog
from effivmt.pipeline.runner import StageRunner
from effivmt.pipeline.stages import STAGES
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store


def fill_step_by_step(disk: SmallDisk, pages: int, run: Callable[[], None]) -> int:
    """Lets the disk grow until `run` succeeds; returns how often it was full, each time told in one line."""
    full = 0
    while True:
        try:
            run()
            return full
        except DiskFullError as error:
            assert str(disk.path) in str(error) and str(error).count("the disk is full") == 1
            full += 1
            disk.grow(pages)


@pytest.mark.parametrize("pages", [pytest.param(1, marks=pytest.mark.slow), 12])
def test_a_store(made: Made, params: Params, clip: Clip, tmp_path: Path, disk: SmallDisk, pages: int) -> None:
    """In whatever stage the store is full: an artifact, its record, or a checkpoint."""
    at: Counter[str] = Counter()

    def run() -> None:
        runner = StageRunner(Ear())
        try:
            transfer(Workspace(Store(disk.path / "store"), params), clip, tmp_path / "out", runner)
        except DiskFullError:
            at[runner.stage] += 1
            raise

    full = fill_step_by_step(disk, pages, run)
    assert full >= 7 and at.keys() >= (set(STAGES) if pages == 1 else {"ingest", "temporal", "render"})
    assert contents(disk.path / "store") == contents(made.folder / "store")
    assert outputs(tmp_path / "out") == made.outputs()
    assert not [path for name in ("building", "scratch", "locks") for path in (disk.path / "store" / name).glob("*")]


@pytest.mark.parametrize("pages", [pytest.param(1, marks=pytest.mark.slow), 9])
def test_an_out_folder(made: Made, params: Params, clip: Clip, tmp_path: Path, disk: SmallDisk, pages: int) -> None:
    work = Workspace(Store(made.copy(tmp_path)), params)
    assert fill_step_by_step(disk, pages, lambda: transfer(work, clip, disk.path / "out")) >= 5
    assert outputs(disk.path / "out") == made.outputs()


def test_the_folder_of_a_catalog_run(made: Made, params: Params, clip: Clip, tmp_path: Path, disk: SmallDisk) -> None:
    """A clip whose outputs find no room fails with the line; the run goes on, until it cannot write its own tables."""
    video = shutil.copy(clip.video, tmp_path)
    (tmp_path / "c.csv").write_text(
        f"clip,video,caption,prompts\n{clip.clip},{Path(video).name},{clip.caption},{clip.prompts[0]}\n",
        encoding="utf-8",
    )
    work = Workspace(Store(made.copy(tmp_path)), params)
    catalog = load_catalog(tmp_path / "c.csv")
    reasons: list[str] = []

    def run() -> None:
        summary = run_catalog(work, catalog, disk.path / "out")
        reasons.extend(outcome.reason for outcome in summary.clips if outcome.reason)
        if summary.failed:
            raise DiskFullError(reasons[-1])

    assert fill_step_by_step(disk, 20, run) >= 3
    assert reasons and all("the disk is full" in reason for reason in reasons)
    assert outputs(disk.path / "out").items() >= made.outputs().items()


@pytest.mark.slow
def test_no_stage_needs_room_in_the_temporary_folder(
    made: Made, params: Params, clip: Clip, tmp_path: Path, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (disk.path / "filler").write_bytes(b"x" * disk.size)
    monkeypatch.setattr(tempfile, "tempdir", str(disk.path))
    monkeypatch.setenv("TMPDIR", str(disk.path))
    with pytest.raises(OSError, match="No space left"):
        (Path(tempfile.gettempdir()) / "more").write_bytes(b"x")
    store = made.copy(tmp_path)
    for stage in ("text", "heads", "temporal", "render"):
        shutil.rmtree(store / stage)
    transfer(Workspace(Store(store), params), clip, tmp_path / "out")
    assert outputs(tmp_path / "out") == made.outputs()
