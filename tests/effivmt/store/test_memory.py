"""The peak is that of the work since the last reset, where the kernel can reset it, and an artifact notes its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from effivmt.store import memory

SIZE = 128 * 2**20
GROWS = f"""
import numpy as np
from effivmt.store.memory import peak_bytes, reset_peak
reset_peak()
before = peak_bytes()
np.ones({SIZE}, np.uint8)
print(before, peak_bytes())
reset_peak()
print(peak_bytes())
"""
BUILDS = f"""
import sys
from pathlib import Path
import numpy as np
from effivmt.store.artifact import Key
from effivmt.store.store import Store

def build(clip, size):
    def make(out, scratch):
        (out / "file").write_bytes(bytes([int(np.ones(size, np.uint8)[0])]))
    return Store(Path(sys.argv[1])).build(Key("ingest", 1, {{"clip": clip}}, {{}}, "0" * 64), make).peak_bytes

print(build("large", {SIZE}), build("small", 1), build("large", {SIZE}))
"""
"""Both in a process of their own: in this one, other tests' memory may be given back meanwhile, or be free for the work
without a further byte from the kernel."""


def kernel_resets() -> bool:
    """Whether this kernel lets a process reset its high-water mark: some have no such file, or do nothing with it."""

    def mark() -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

    try:
        np.ones(SIZE, np.uint8)
        before = mark()
        Path("/proc/self/clear_refs").write_text("5")
        return 1024 * (before - mark()) > SIZE / 2
    except (OSError, StopIteration):
        return False


resets = pytest.mark.skipif(not kernel_resets(), reason="the kernel cannot reset the mark")


@pytest.fixture(scope="module")
def peaks() -> list[int]:
    """In bytes: before the work, after it, and after a reset."""
    ended = subprocess.run([sys.executable, "-c", GROWS], capture_output=True, text=True, check=True)
    return [int(peak) for peak in ended.stdout.split()]


def test_the_peak_rises_with_the_work(peaks: list[int]) -> None:
    before, after, _ = peaks
    assert before > 1e7 and before + 0.7 * SIZE < after < before + 1.5 * SIZE


@resets
def test_the_peak_falls_with_a_reset(peaks: list[int]) -> None:
    before, _, reset = peaks
    assert reset < before + 0.5 * SIZE


def test_elsewhere_it_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", Path("/nowhere"))
    monkeypatch.setattr(memory, "_CLEAR", Path("/nowhere/at/all"))
    memory.reset_peak()
    assert memory.peak_bytes() > 1e7


def test_without_a_gpu_there_is_no_peak_of_one() -> None:
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        pytest.skip("this process uses a GPU")
    memory.reset_peak()
    assert memory.gpu_peak_bytes() is None


@resets
def test_an_artifact_notes_what_its_work_took(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", BUILDS, str(tmp_path)], capture_output=True, text=True, check=True)
    large, small, again = (int(peak) for peak in ended.stdout.split())
    assert large > small + 0.7 * SIZE
    assert again == large
