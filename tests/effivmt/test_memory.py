"""The peak is that of the work since the last reset, and an artifact notes its own."""

from pathlib import Path

import numpy as np
import pytest

from effivmt import memory
from effivmt.store import Key, Store

SIZE = 128 * 2**20
resets = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel cannot reset the mark")


@resets
def test_the_peak_rises_with_the_work_and_falls_with_a_reset() -> None:
    memory.reset_peak()
    before = memory.peak_bytes()
    np.ones(SIZE, np.uint8)
    assert before + 0.9 * SIZE < memory.peak_bytes() < before + 1.5 * SIZE
    memory.reset_peak()
    assert memory.peak_bytes() < before + 0.5 * SIZE


def test_elsewhere_it_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", Path("/nowhere"))
    monkeypatch.setattr(memory, "_CLEAR", Path("/nowhere/at/all"))
    memory.reset_peak()
    assert memory.peak_bytes() > 1e7


@resets
def test_an_artifact_notes_what_its_work_took(tmp_path: Path) -> None:
    store, peaks = Store(tmp_path), []
    for name, size in (("large", SIZE), ("small", 1)):

        def make(out: Path, _scratch: Path, size: int = size) -> None:
            (out / "file").write_bytes(bytes([int(np.ones(size, np.uint8)[0])]))

        key = Key("ingest", 1, {"clip": name}, {}, "0" * 64)
        made = store.build(key, make)
        assert store.build(key, make).peak_bytes == made.peak_bytes
        peaks.append(made.peak_bytes)
    assert peaks[0] > peaks[1] + 0.7 * SIZE
