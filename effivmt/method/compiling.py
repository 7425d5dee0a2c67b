"""A transformer's blocks compiled by `torch.compile`, one at a time: blocks that are alike share what is compiled."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch._dynamo.exc import TorchDynamoException

from effivmt.errors import ParamsError
from effivmt.method.memory_choices import MemoryChoices


def check_compiler(device: torch.device, memory: MemoryChoices) -> None:
    """Compiles a small function for `device`; ParamsError where that fails, or where what saves memory forbids it."""
    chosen = {"offloaded blocks": memory.offloaded_blocks, "frozen weights in 8 bits": memory.float8_base}
    if any(chosen.values()):
        names = " and ".join(name for name, needed in chosen.items() if needed)
        raise ParamsError(
            f"backbone.compile is true but backbone.memory needs {names}, whose hooks cannot be compiled; set "
            "backbone.compile to false, or give more memory"
        )
    with _named_errors():
        torch.compile(lambda x: 2 * x + 1)(torch.ones(8, device=device))


@contextmanager
def compiled_blocks(transformer: WanTransformer3DModel, *, needed: bool) -> Iterator[None]:
    """Within the context, where it is needed, each block is compiled when it first runs, as it is then: stock or tuned.

    Raises ParamsError where a block cannot be compiled.
    """
    if not needed:
        yield
        return
    try:
        with _named_errors():
            transformer.compile_repeated_blocks()
            yield
    finally:
        for block in transformer.blocks:
            block._compiled_call_impl = None
        torch.compiler.reset()  # torch keeps eight versions of a function: the next clip gets its own


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except TorchDynamoException as error:
        reason = " ".join(str(error).split())[:300]
        raise ParamsError(
            f"backbone.compile is true but torch cannot compile here ({type(error).__name__}: {reason}); install a "
            "compiler for C++ (such as g++), or set backbone.compile to false"
        ) from error
