"""Devices by name; a wrong name, or a GPU that is not there, names the option."""

import os

import pytest
import torch

from effivmt.errors import ParamsError
from effivmt.method.device import deterministic_gradients, pick_device, prepare_gpu


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


@pytest.fixture
def restored(monkeypatch):
    """Settings of this process as they were, after the test."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    matmul, fill = torch.backends.cuda.matmul.allow_tf32, torch.utils.deterministic.fill_uninitialized_memory
    on, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    yield
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    torch.use_deterministic_algorithms(on, warn_only=warns)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    torch.backends.cuda.matmul.allow_tf32 = matmul


@pytest.mark.parametrize(("dtype", "asked"), [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)])
def test_a_gpu_computes_the_same_each_time(restored, monkeypatch, dtype, asked):
    prepare_gpu(dtype, allow_tf32=asked)
    assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.backends.cuda.matmul.allow_tf32 == (asked or dtype == torch.bfloat16)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    prepare_gpu(dtype)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"  # a user's own


def test_gradients_of_a_gpu_take_deterministic_versions_alone(restored):
    """Where torch only warns, the backward passes of its attention are not deterministic."""
    prepare_gpu(torch.float32)
    with deterministic_gradients(torch.device("cpu")):
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    with pytest.raises(KeyboardInterrupt), deterministic_gradients(torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        raise KeyboardInterrupt
    assert torch.is_deterministic_algorithms_warn_only_enabled()
