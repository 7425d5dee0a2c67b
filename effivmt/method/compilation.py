"""Blocks compiled by torch, one at a time: diffusers' regional compilation."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from effivmt.errors import ParamsError


def check_compilation(device: torch.device, *, offloaded: bool) -> None:
    """ParamsError where blocks cannot be compiled: they wait on the host, or the processor has no C++ compiler."""
    if offloaded:
        raise ParamsError(
            "render.compile is true, but the blocks wait on the host to fit into backbone.memory, and cannot be "
            "compiled there; leave render.compile out, or allow more memory"
        )
    if device.type == "cpu" and shutil.which(os.environ.get("CXX") or "g++") is None:
        raise ParamsError(
            "render.compile is true, which on the processor needs a C++ compiler: install one (such as g++), name it "
            "in CXX, or leave render.compile out"
        )


@contextmanager
def compiled(transformers: Sequence[WanTransformer3DModel]) -> Iterator[None]:
    """Compiles the blocks of transformers while the context lasts; the next context finds what torch has compiled."""
    try:
        for transformer in transformers:
            transformer.compile_repeated_blocks()
        yield
    finally:
        for transformer in transformers:
            for block in transformer.blocks:
                block._compiled_call_impl = None  # tuning gives the blocks another forward
