"""A key, and what builds its artifact: at once, slowly, or until it is killed."""

import multiprocessing
import os
import time
from contextlib import contextmanager
from pathlib import Path

from effivmt.store.artifact import Key
from effivmt.store.store import Store

SPAWN = multiprocessing.get_context("spawn")
KEY = Key("spatial", 1, {"clip": "c" * 64, "heads": "d" * 64}, {"steps": 50, "optimizer": {"lr": 1e-4}}, "b" * 64)


def make(out: Path, scratch: Path) -> None:
    (out / "frames").mkdir()
    (out / "adapter.bin").write_bytes(bytes(range(256)) * 40)
    (out / "frames" / "0.txt").write_text("first frame")


def make_once_slowly(out: Path, scratch: Path) -> None:
    """Leaves a line beside the store for every run of it."""
    with open(out.parents[2] / "runs.txt", "a") as runs:
        runs.write("run\n")
    time.sleep(0.3)
    make(out, scratch)


def make_until_killed(out: Path, scratch: Path) -> None:
    (out / "half.bin").write_bytes(b"half")
    (scratch / "step-40.txt").write_text("forty steps")
    (out.parents[2] / "reached").touch()
    time.sleep(120)


def build_in_child(root: Path, start, results) -> None:
    start.wait(60)
    results.put(Store(root).build(KEY, make_once_slowly))


def build_until_killed(root: Path) -> None:
    Store(root).build(KEY, make_until_killed)


def started_until_killed(root: Path) -> multiprocessing.Process:
    """A process in the middle of building KEY's artifact, to be killed."""
    child = SPAWN.Process(target=build_until_killed, args=(root,))
    child.start()
    while not (root.parent / "reached").exists():
        assert child.is_alive()
        time.sleep(0.01)
    return child


def flip(path: Path, position: int) -> None:
    """Changes one bit of a file in place."""
    with path.open("r+b") as stream:
        stream.seek(position)
        byte = stream.read(1)[0]
        stream.seek(position)
        stream.write(bytes([byte ^ 1]))


def leftovers(root: Path) -> list[str]:
    return [
        p.relative_to(root).as_posix() for name in ("building", "scratch", "locks") for p in (root / name).glob("*")
    ]


@contextmanager
def unprivileged():
    """Without the superuser's right to write everywhere, so that folder permissions hold."""
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65534)
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)
