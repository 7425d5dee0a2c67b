"""`effivmt store` and `effivmt run --delete-removed` as a user calls them."""

import os
import shutil
import time
from pathlib import Path

import pytest
from command import Ended, effivmt

HEADING = "clip,video,caption,prompts\n"
ROWS = {
    "one": "one,a.mp4,a red square,a green circle\n",
    "two": "two,a.mp4,a square,a yellow star\n",
}


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory, project: Path, sample_video: Path) -> Path:
    """The folder of a catalog of two clips of one video, whose captions differ, after a run."""
    folder = tmp_path_factory.mktemp("computed")
    (folder / "a.mp4").write_bytes(sample_video.read_bytes())
    (folder / "c.csv").write_text(HEADING + "".join(ROWS.values()), encoding="utf-8")
    assert run(project, folder / "c.csv").code == 0
    return folder


@pytest.fixture
def catalog(computed: Path, tmp_path: Path) -> Path:
    """The catalog in a copy of that folder."""
    shutil.copytree(computed, tmp_path / "copy")
    return tmp_path / "copy" / "c.csv"


def run(project: Path, catalog: Path, *more: object) -> Ended:
    places = ("--params", project / "params.yaml", "--store", catalog.parent / "store", "--out", catalog.parent / "out")
    return effivmt("run", catalog, "--engine", "local", *places, *more)


def prune(project: Path, catalog: Path, *more: object) -> Ended:
    return effivmt("store", "prune", "--store", catalog.parent / "store", *more)


def stages(store: Path) -> list[str]:
    """The stage of each artifact."""
    return sorted(path.parent.parent.name for path in store.glob("*/*/artifact.json"))


def test_a_row_that_left_is_named_and_its_results_and_artifacts_go_when_asked(project: Path, catalog: Path) -> None:
    store, out = catalog.parent / "store", catalog.parent / "out"
    whole = stages(store)
    listed = effivmt("store", "ls", "--store", store)
    assert listed.code == 0 and [listed.out.count(f"│ {stage} ") for stage in ("ingest", "temporal")] == [1, 2]
    measured = effivmt("store", "du", "--store", store)
    assert measured.code == 0 and "temporal" in measured.out and f"in {store}" in measured.out

    catalog.write_text(HEADING + ROWS["one"], encoding="utf-8")
    for _ in range(2):  # not only the first time
        ended = run(project, catalog)
        assert ended.code == 0 and "no longer in the catalog: two; --delete-removed deletes" in ended.out
    assert (out / "two" / "video-1.mp4").is_file()
    planned = run(project, catalog, "--delete-removed", "--dry-run")
    assert f"would delete {out / 'two'}" in planned.err and (out / "two").exists()
    ended = run(project, catalog, "--delete-removed")
    assert ended.code == 0 and "no longer" not in ended.out and f"deleted {out / 'two'}" in ended.err
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["one"]

    options = ("--unused-by", catalog, "--params", project / "params.yaml")
    would = prune(project, catalog, *options, "--dry-run")
    assert would.code == 0 and "would remove artifact" in would.out and stages(store) == whole
    assert prune(project, catalog, *options, "--keep-days", 1).out.startswith("0 of ")  # all of it was used today
    ended = prune(project, catalog, *options)
    assert ended.code == 0 and ended.out.count("removed artifact") == would.out.count("would remove artifact") > 0
    left = stages(store)
    assert (left.count("ingest"), left.count("temporal"), left.count("evaluate")) == (1, 1, 1)
    assert "0 done, 1 hit, 0 failed" in run(project, catalog).out


def test_a_catalog_that_cannot_be_told_removes_nothing(project: Path, catalog: Path) -> None:
    store = catalog.parent / "store"
    whole, options = stages(store), ("--unused-by", catalog, "--params", project / "params.yaml")
    (catalog.parent / "a.mp4").rename(catalog.parent / "b.mp4")  # as on a disk that is not mounted
    ended = prune(project, catalog, *options)
    assert ended.code == 1 and "clip one, ingest: video" in ended.err and "nothing is removed" in ended.err
    catalog.write_text(HEADING + ROWS["one"] + "two,b.mp4,a square,\n", encoding="utf-8")
    assert "nothing is removed" in prune(project, catalog, *options).err
    assert run(project, catalog, "--delete-removed").code == 2 and (catalog.parent / "out" / "two").exists()
    assert stages(store) == whole
    assert prune(project, catalog, "--set", "seed=1").code == 2


def test_a_clip_that_is_half_computed_keeps_all_that_was_made_of_it(project: Path, catalog: Path) -> None:
    store = catalog.parent / "store"
    whole, options = stages(store), ("--unused-by", catalog, "--params", project / "params.yaml")
    assert prune(project, catalog, *options, "--set", "heads.alpha=2.0").code == 0
    assert stages(store) == whole


def test_days_count_from_the_last_use(project: Path, catalog: Path) -> None:
    store = catalog.parent / "store"
    before = time.time() - 40 * 24 * 3600
    for record in store.glob("*/*/artifact.json"):
        os.utime(record, (before, before))
    assert "0 done, 1 hit, 0 failed" in run(project, catalog, "--only", "one").out
    assert prune(project, catalog, "--keep-days", 30).code == 0 and stages(store).count("temporal") == 1
    assert "0 done, 1 hit, 0 failed" in run(project, catalog, "--only", "one").out
