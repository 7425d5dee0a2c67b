"""Devices by name; a wrong name, or a GPU that is not there, names the option."""

import pytest
import torch

from effivmt.errors import ParamsError
from effivmt.method.device import pick_device


def test_names_stand_for_devices() -> None:
    assert pick_device("cpu", "backbone.device") == torch.device("cpu")
    assert pick_device("auto", "backbone.device").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["abacus", "cuda:first"])
def test_another_name_is_told(name: str) -> None:
    with pytest.raises(ParamsError, match=f"--device is '{name}'; expected auto, cpu"):
        pick_device(name, "--device")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_told() -> None:
    with pytest.raises(ParamsError, match="no GPU is visible; set --device to auto or cpu"):
        pick_device("cuda:1", "--device")
