"""Videos that are changed at random are read, or refused in one line; in little time and memory."""

import json
from pathlib import Path

import pytest
from mutating import attempt_all
from trial import Tries, measured

PEAK = 10**9
SECONDS = 60.0
MUTANTS = 2100


def test_some_mutants(tmp_path: Path, tries: Tries) -> None:
    ended = attempt_all(tmp_path, 42)
    assert ended["read"] and ended["refused"]
    tries(42)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_mutants(tmp_path: Path, tries: Tries) -> None:
    """In a process of its own: a fault of libav's would end it."""
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import runpy"
    program += f"; runpy.run_path({str(Path(__file__).with_name('mutating.py'))!r}, run_name='__main__')"
    ended = measured(tmp_path, tmp_path, MUTANTS, code=program)
    assert ended.code == 0, ended.err[-3000:]
    counts = json.loads(ended.out)
    tries(counts["tries"])
    assert counts["read"] + counts["refused"] == 3 * MUTANTS and min(counts["read"], counts["refused"]) > MUTANTS / 10
    assert counts["slowest"] < SECONDS and ended.peak < PEAK, (counts, ended.peak)
