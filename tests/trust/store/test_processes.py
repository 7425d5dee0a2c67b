"""Processes on one store that are killed, or all meet the same damage: nothing is lost and nothing is wrong."""

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from harm import HARMS, Ear, Made, contents, harm, outputs

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.pipeline.api import transfer
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store

KILLS = 50
ROUNDS = 6
TOGETHER = 4
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["effivmt.pipeline.api", "effivmt.method.backbone", "effivmt.evaluation.measure"])


def run(params: Params, clip: Clip, store: Path, out: Path) -> None:
    """The work of a process."""
    transfer(Workspace(Store(store), params), clip, out)


def started(*arguments: object) -> BaseProcess:
    process = PROCESSES.Process(target=run, args=arguments)
    process.start()
    return process


def published(store: Path) -> dict[str, str]:
    """Digests of the files of all artifacts."""
    return {n: digest for n, digest in contents(store).items() if not n.startswith(("building/", "scratch/"))}


def test_killed_again_and_again(made: Made, params: Params, clip: Clip, tmp_path: Path) -> None:
    """At seeded times over the whole of a run; what is in the store is whole after every kill."""
    chance, kills, rounds, whole = random.Random(19), 0, 0, contents(made.folder / "store")
    begun = time.monotonic()
    started(params, clip, tmp_path / "timed", tmp_path / "timed-out").join()
    lasting = time.monotonic() - begun
    while kills < KILLS:
        store, out, rounds = tmp_path / f"store-{rounds}", tmp_path / f"out-{rounds}", rounds + 1
        for _ in range(7):
            process = started(params, clip, store, out)
            process.join(chance.uniform(0, lasting / 2))
            if process.exitcode is None:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                kills += 1
            assert published(store).items() <= whole.items()
        ear = Ear()
        transfer(Workspace(Store(store), params, ear), clip, out)
        assert ear.damaged == []  # a kill damages nothing
        assert contents(store) == whole and outputs(out) == made.outputs()
        assert not [path for name in ("building", "scratch", "locks") for path in (store / name).glob("*")]


def test_the_same_damage_for_four(made: Made, params: Params, clip: Clip, tmp_path: Path) -> None:
    """Files of any kind, damaged in any way; every process ends well, with the results of a whole store."""
    chance = random.Random(20)
    for number in range(ROUNDS):
        folder = tmp_path / f"{number}"
        store = made.copy(folder)
        files = sorted(path for path in store.glob("*/*/**/*") if path.is_file())
        for path in chance.sample(files, 5):
            harm(path, chance.choice(HARMS))
        processes = [started(params, clip, store, folder / f"out-{i}") for i in range(TOGETHER)]
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * TOGETHER
        assert [outputs(folder / f"out-{i}") for i in range(TOGETHER)] == [made.outputs()] * TOGETHER
