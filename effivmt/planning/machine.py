"""What this machine has: memory of the GPU and of the host, and how fast it multiplies matrices."""

import statistics
import time
from pathlib import Path

_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of them is there where a GPU can be seen (the second under WSL); without them torch need not be asked."""


def gpu_gigabytes(device: str) -> int | None:
    """Memory, in GiB, of the GPU that `backbone.device` stands for; None where that is the processor."""
    if device == "cpu" or not any(driver.exists() for driver in _DRIVERS):
        return None
    import torch  # slow to import, and a machine without a driver needs none of it

    from effivmt.method.device import pick_device

    picked = pick_device(device, "backbone.device")
    return None if picked.type == "cpu" else round(torch.cuda.mem_get_info(picked)[1] / 2**30)


def host_bytes() -> int:
    """Memory of this machine, in bytes."""
    import psutil

    return int(psutil.virtual_memory().total)


def matmul_rate(device: str, dtype: str, *, size: int | None = None, repeats: int = 5) -> float:
    """FLOPs a second of square matrix products on a device ("cpu" or "cuda"), the median of some.

    size: of the matrices; by default 8192 on a GPU and 1024 on a processor.
    """
    import torch

    on_gpu = torch.device(device).type == "cuda"
    size = size or (8192 if on_gpu else 1024)
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        a @ b
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[1:])  # the first product also loads the library
