"""Peak memory of this process, on the host and on GPUs, while a piece of work lasts."""

import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Resets both peaks; where the kernel cannot (all but Linux) the host's stays that since the process began."""
    with suppress(OSError):
        _CLEAR.write_text("5")
    for gpu in _gpus():
        _cuda().reset_peak_memory_stats(gpu)


def peak_bytes() -> int:
    """Peak resident memory of this process since `reset_peak`, in bytes."""
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def gpu_peak_bytes() -> int | None:
    """Peak of the tensors on the GPU that held most since `reset_peak`, in bytes; None where no GPU was used."""
    return max((_cuda().max_memory_allocated(gpu) for gpu in _gpus()), default=None)


def _gpus() -> Sequence[int]:
    """The GPUs of a process that has used one; torch is not imported for the question."""
    used = "torch" in sys.modules and _cuda().is_initialized()
    return range(_cuda().device_count()) if used else ()


def _cuda() -> Any:
    """The module torch.cuda of a process that has imported torch."""
    return sys.modules["torch"].cuda
