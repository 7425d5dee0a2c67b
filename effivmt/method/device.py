"""Where models run: the processor or a GPU, and how torch computes there."""

import os

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
    no deterministic version of warns and goes on. TF32 holds bfloat16 values exactly, so beside weights of that
    precision it is always allowed.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # two of torch's sizes are deterministic, this is one
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a pass over every new tensor, to find faults of code
    torch.backends.cuda.matmul.allow_tf32 = allow_tf32 or dtype == torch.bfloat16
