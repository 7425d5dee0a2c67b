"""Transfers that are killed at any moment: nothing is lost, and nothing half-written is read as whole."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from harm import Ear, Made, contents, outputs
from processes import published, started
from trial import Tries

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.pipeline.api import transfer
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store

KILLS = 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_again_and_again(made: Made, params: Params, clip: Clip, tmp_path: Path, tries: Tries) -> None:
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
    tries(kills)
