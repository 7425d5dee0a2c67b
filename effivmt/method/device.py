"""Where models run: the processor or a GPU, and how torch computes there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from effivmt.errors import ParamsError


def pick_device(name: str, option: str) -> torch.device:
    """The device of a name (auto, cpu, cuda or cuda:N); auto is a GPU where one is visible.

    Raises ParamsError, which names `option`, for another name and where there is no such GPU.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ParamsError(f"{option} is {name!r}; expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ParamsError(f"{option} is {name!r} but no GPU is visible; set {option} to auto or cpu")
    return device


def prepare_gpu(dtype: torch.dtype, *, allow_tf32: bool = False) -> None:
    """Makes this process compute the same on a GPU each time, and says how it multiplies float32 matrices there.

    To be called before the first product on a GPU: cuBLAS reads its workspace's size then. An operation that torch has
    no deterministic version of warns and goes on; `deterministic_gradients` is stricter. TF32 holds bfloat16 values
    exactly, so beside weights of that precision it is always allowed.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # two of torch's sizes are deterministic, this is one
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It is a pass over every new tensor, to find faults of code; torch's annotations do not have it.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    torch.backends.cuda.matmul.allow_tf32 = allow_tf32 or dtype == torch.bfloat16


@contextmanager
def deterministic_gradients(device: torch.device) -> Iterator[None]:
    """Within the context the gradients of a GPU are the same each time.

    Where torch is only to warn, the backward passes of its attention are not deterministic. Here it refuses, by a
    RuntimeError, an operation that has no deterministic version.
    """
    if device.type != "cuda":
        yield
        return
    on, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(on, warn_only=warns)
