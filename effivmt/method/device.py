"""Where models run: the processor or a GPU."""

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
