"""Reads the tensors that a stage takes from the artifacts of the stages before it."""

from typing import TYPE_CHECKING

from effivmt.store import Artifact

if TYPE_CHECKING:
    import torch


def load_tensor(artifact: Artifact, name: str) -> "torch.Tensor":
    """The tensor `name` of the file `<name>.safetensors` of an artifact."""
    from safetensors.torch import load_file

    return load_file(artifact.file(f"{name}.safetensors"))[name]
