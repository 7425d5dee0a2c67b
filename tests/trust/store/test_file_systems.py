"""Stores on file systems that lack something, and under a clock that is set back."""

import errno
import fcntl
import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from harm import Ear, Made, contents, harm, outputs
from refusing import in_a_process_without

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import StoreError
from effivmt.method.checkpoint import load_checkpoint, save_checkpoint
from effivmt.pipeline.api import transfer
from effivmt.pipeline.workspace import Workspace
from effivmt.store.artifact import Key
from effivmt.store.memo import read_memo, write_memo
from effivmt.store.store import Store

KEY = Key("ingest", 1, {"clip": "a"}, {}, "b")
DAY = 24 * 3600


def build(store: Path, text: str = "whole") -> Path:
    def make(out: Path, scratch: Path) -> None:
        weights = {"a": torch.nn.Parameter(torch.ones(2))}
        optimizer = torch.optim.AdamW(weights.values())
        save_checkpoint(scratch / "a.safetensors", 3, weights, optimizer, logs={})
        assert load_checkpoint(scratch / "a.safetensors", weights, optimizer)[0] == 3
        (out / "a.txt").write_text(text)

    return Store(store).build(KEY, make).file("a.txt")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_fsync(tmp_path: Path, number: int) -> None:
    def work() -> None:
        with pytest.raises(OSError, match=os.strerror(number)), (tmp_path / "a").open("w") as file:
            os.fsync(file)
        assert build(tmp_path / "store").read_text() == "whole"
        write_memo(tmp_path / "store/m.json", {"a" * 64: "b" * 64})

    in_a_process_without("fsync", number, work)
    found = Store(tmp_path / "store").find(KEY)
    assert found is not None and found.file("a.txt").read_text() == "whole"
    assert read_memo(tmp_path / "store/m.json") == {"a" * 64: "b" * 64}


def test_a_disk_that_fails_to_sync_is_told(tmp_path: Path) -> None:
    def work() -> None:
        with pytest.raises((StoreError, OSError), match="Input/output error"):
            build(tmp_path / "store")

    in_a_process_without("fsync", errno.EIO, work)
    assert Store(tmp_path / "store").find(KEY) is None


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks(tmp_path: Path, number: int) -> None:
    """Nothing is made, as two processes could make it at once; what is there is read."""
    build(tmp_path / "made")

    def work() -> None:
        with pytest.raises(OSError, match=os.strerror(number)), (tmp_path / "a").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="its file system has no file locks; move it to a local disk, or choose"):
            build(tmp_path / "store")
        assert build(tmp_path / "made").read_text() == "whole"

    in_a_process_without("flock", number, work)
    assert Store(tmp_path / "store").find(KEY) is None


@pytest.mark.parametrize("days", [-400, -1 / 24, 10])
def test_a_clock_that_is_set(
    made: Made, params: Params, clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float
) -> None:
    """Hits stay hits, checkpoints stay, and damage is seen."""

    class Stopped(Ear):
        def on_stage_progress(self, stage: str, done: int, total: int) -> None:
            if (stage, done) == ("temporal", 2):
                raise KeyboardInterrupt

    store, other = made.copy(tmp_path), clip.model_copy(update={"seed": 7})
    shutil.rmtree(made.artifact(store, "temporal"))
    with pytest.raises(KeyboardInterrupt):
        transfer(Workspace(Store(store), params, Stopped()), clip, tmp_path / "out")
    (checkpoint,) = store.glob("scratch/*/temporal.safetensors")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + days * DAY)
    Store(store).build(KEY, lambda out, _: (out / "a").touch() or (out / "a").write_text("a"))  # it tidies the store
    assert checkpoint.exists()
    ear = Ear()
    transfer(Workspace(Store(store), params, ear), clip, tmp_path / "out")
    assert ear.ran == ["temporal"] and not ear.damaged and not checkpoint.exists()
    assert outputs(tmp_path / "out") == made.outputs()
    damaged = made.artifact(store, "ingest") / "single.safetensors"
    harm(damaged, "flip")
    transfer(Workspace(Store(store), params, ear), other, tmp_path / "other")
    assert ear.damaged == [damaged]
    assert (
        contents(store).items()
        >= {
            name: digest for name, digest in contents(made.folder / "store").items() if name.startswith("ingest/")
        }.items()
    )
