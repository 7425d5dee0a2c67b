"""Reads the tensors that a stage takes from the artifacts of the stages before it."""

from typing import TYPE_CHECKING

from effivmt.store import Artifact

if TYPE_CHECKING:
    import torch


def load_tensors(artifact: Artifact, name: str) -> "dict[str, torch.Tensor]":
    """The tensors of the file `<name>.safetensors` of an artifact, in memory.

    Mapped ones, as `load_file` gives, would change with the file, and a file that is cut would end the process.
    """
    from safetensors.torch import load

    return load(artifact.read(f"{name}.safetensors"))


def load_tensor(artifact: Artifact, name: str) -> "torch.Tensor":
    """The tensor `name` of the file `<name>.safetensors` of an artifact, in memory."""
    return load_tensors(artifact, name)[name]
