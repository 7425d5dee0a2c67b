"""What the store lists is what is there, and a prune takes what nothing uses, whole, and nothing else."""

import os
import time
from pathlib import Path

import pytest
from storing import KEY, flip, leftovers, make, started_until_killed

from effivmt.store import upkeep
from effivmt.store.artifact import Artifact, Key
from effivmt.store.locks import locked
from effivmt.store.record import RECORD
from effivmt.store.store import Store

DAY = 24 * 3600


def build(store: Store, stage: str, content: str, *sources: Artifact) -> Artifact:
    """An artifact that was made of the first file of each of the others."""
    inputs = {f"source_{i}": next(iter(source.files.values())) for i, source in enumerate(sources)}

    def write(out: Path, scratch: Path) -> None:
        (out / "file.txt").write_text(content)

    return store.build(Key(stage, 1, inputs, {"content": content}, "b" * 64), write)


def age(artifact: Artifact, days: float) -> None:
    before = time.time() - days * DAY
    os.utime(artifact.path / RECORD, (before, before))


def going(store: Store, **options) -> set[str]:
    return {entry.key for entry in upkeep.removable(upkeep.list_entries(store.root), **options)}


def test_the_list_says_what_there_is(store: Store) -> None:
    found = build(store, "ingest", "0123456789")
    (entry,) = upkeep.list_entries(store.root)
    assert (entry.kind, entry.stage, entry.key, entry.path) == ("artifact", "ingest", found.key, found.path)
    assert entry.size == 10 + (found.path / RECORD).stat().st_size and entry.used == pytest.approx(time.time(), abs=60)
    (store.root / "pulled" / ("a" * 64)).mkdir(parents=True)
    (store.root / "pulled" / ("a" * 64) / "adapter.json").write_text("{}")
    assert [(row.name, row.count) for row in upkeep.usage(store.root)] == [("ingest", 1), ("pulled adapters", 1)]
    assert upkeep.list_entries(store.root / "nowhere") == []


def test_use_is_noted_once_an_hour(store: Store) -> None:
    found = build(store, "ingest", "a")
    age(found, 3)
    store.find(Key("ingest", 1, {}, {"content": "a"}, "b" * 64))  # a plan, for one, uses nothing
    assert going(store, keep_days=2) == {found.key}
    build(store, "ingest", "a")
    noted = (found.path / RECORD).stat().st_mtime
    assert noted == pytest.approx(time.time(), abs=60) and going(store, keep_days=2) == set()
    os.utime(found.path / RECORD, (noted - 60, noted - 60))
    build(store, "ingest", "a")
    assert (found.path / RECORD).stat().st_mtime == noted - 60


def test_what_a_used_artifact_was_made_of_stays(store: Store) -> None:
    clip = build(store, "ingest", "clip")
    weights = build(store, "temporal", "weights", clip)
    video = build(store, "render", "video", weights)
    other = build(store, "ingest", "other")
    for artifact in (clip, weights, other):
        age(artifact, 30)
    assert going(store, keep_days=7) == {other.key}
    assert going(store, keep_days=7, needed={other.key}) == set()
    assert going(store, needed={weights.key}) == {video.key, other.key}
    assert going(store) == set()


def test_a_prune_takes_whole_artifacts_and_leaves_nothing(store: Store) -> None:
    clip, other = build(store, "ingest", "clip"), build(store, "ingest", "other")
    done = list(upkeep.prune(store.root, upkeep.removable(upkeep.list_entries(store.root), needed={clip.key})))
    assert [(entry.key, gone) for entry, gone in done] == [(other.key, True)]
    assert not other.path.exists() and clip.path.exists() and leftovers(store.root) == []
    assert store.explain(Key("ingest", 1, {}, {"content": "other"}, "b" * 64)) == "never computed"


def test_what_is_used_or_made_meanwhile_stays(store: Store) -> None:
    clip, other = build(store, "ingest", "clip"), build(store, "ingest", "other")
    age(clip, 3)
    age(other, 3)
    entries = upkeep.removable(upkeep.list_entries(store.root), keep_days=1)
    build(store, "ingest", "clip")  # a run uses it between the look and the removal
    with locked(store.root, other.key):
        assert [gone for _, gone in upkeep.prune(store.root, entries)] == [False, False]
    assert clip.path.exists() and other.path.exists()
    assert [gone for _, gone in upkeep.prune(store.root, entries)].count(True) == 1 and not other.path.exists()


def test_work_that_runs_stays_and_goes_when_it_was_killed(store: Store) -> None:
    child = started_until_killed(store.root)
    entries = upkeep.list_entries(store.root)
    assert [entry.kind for entry in entries] == ["checkpoints", "unfinished"]
    try:
        assert [gone for _, gone in upkeep.prune(store.root, upkeep.removable(entries))] == [False]
        assert (store.root / "building" / KEY.digest / "half.bin").exists()
    finally:
        child.kill()
        child.join()
    assert [gone for _, gone in upkeep.prune(store.root, upkeep.removable(entries))] == [True]
    assert not any((store.root / "building").iterdir()) and (store.root / "scratch" / KEY.digest).exists()
    before = time.time() - 20 * DAY
    for path in (*(store.root / "scratch" / KEY.digest).iterdir(), store.root / "scratch" / KEY.digest):
        os.utime(path, (before, before))
    (old,) = upkeep.removable(upkeep.list_entries(store.root))
    assert old.kind == "checkpoints"


def test_damage_goes_and_a_killed_prune_leaves_no_half_artifact(store: Store) -> None:
    found = store.build(KEY, make)
    flip(found.path / RECORD, 20)
    (entry,) = upkeep.removable(upkeep.list_entries(store.root))
    assert (entry.kind, entry.stage) == ("damaged", "spatial")
    # as a kill right after the rename leaves it
    (store.root / "building").mkdir(exist_ok=True)
    found.path.rename(store.root / "building" / f"{found.key}.pruned")
    assert store.find(KEY) is None
    store.build(KEY, make)
    assert store.find(KEY) is not None and leftovers(store.root) == []
