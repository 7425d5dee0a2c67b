"""Four processes on one store that all meet damage, before they start or while they run: nothing is wrong."""

import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

import pytest
from harm import HARMS, Made, harm, outputs
from processes import started
from trial import Tries

from effivmt.catalog import Clip
from effivmt.config import Params

ROUNDS = 6
TOGETHER = 4
BETWEEN = 0.15
"""Seconds between two damages."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_the_same_damage_for_four(made: Made, params: Params, clip: Clip, tmp_path: Path, tries: Tries) -> None:
    """Files of any kind, damaged in any way; every process ends well, with the results of a whole store."""
    chance = random.Random(20)
    for number in range(ROUNDS):
        folder = tmp_path / f"{number}"
        store = made.copy(folder)
        for path in chance.sample(files_of(store), 5):
            harm(path, chance.choice(HARMS))
            tries()
        run_four(made, params, clip, folder, lambda: None)


def test_damage_while_four_run(made: Made, params: Params, clip: Clip, tmp_path: Path, tries: Tries) -> None:
    """Each file once: whoever finds one damaged for the third time gives up, as the disk is at fault then."""
    chance = random.Random(21)
    for number in range(ROUNDS):
        folder, harmed = tmp_path / f"{number}", set()
        store = made.copy(folder)
        for stage in chance.sample(["heads", "spatial", "temporal", "render", "evaluate"], 3):
            shutil.rmtree(made.artifact(store, stage))

        def damage(store: Path = store, harmed: set[str] = harmed) -> None:
            time.sleep(BETWEEN)
            with suppress(OSError, IndexError):  # what is there has just been replaced, or is empty
                names = {path.relative_to(store).as_posix() for path in files_of(store)} - harmed
                harmed.add(name := chance.choice(sorted(names)))
                harm(store / name, chance.choice(HARMS))
                tries()

        run_four(made, params, clip, folder, damage)


def run_four(made: Made, params: Params, clip: Clip, folder: Path, meanwhile) -> None:
    processes = [started(params, clip, folder / "store", folder / f"out-{i}") for i in range(TOGETHER)]
    while any(process.is_alive() for process in processes):
        meanwhile()
        processes[0].join(0.01)
    assert [process.exitcode for process in processes] == [0] * TOGETHER
    assert [outputs(folder / f"out-{i}") for i in range(TOGETHER)] == [made.outputs()] * TOGETHER


def files_of(store: Path) -> list[Path]:
    """The files of a store's artifacts, without what another damage has set aside."""
    skipped = {"building", "scratch", "locks", "pulled"}
    found = (path for path in store.glob("*/*/**/*") if path.relative_to(store).parts[0] not in skipped)
    return sorted(path for path in found if path.is_file() and not path.is_symlink() and path.suffix != ".moved")
