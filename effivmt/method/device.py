"""Where models run: the processor or a GPU."""

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


def make_deterministic() -> None:
    """Makes torch take, on a GPU, the variants of its operations that give the same bytes each time.

    An operation that has none runs as it is, with a warning of torch. cuBLAS reads its variable when its first product
    is computed.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
