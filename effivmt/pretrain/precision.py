"""Matrix products in bfloat16, where the device has fast ones, while weights, gradients and optimizer stay float32.

A GPU takes autocast. On processors with AMX products in bfloat16 are two to three times as fast as in float32, but
autocast gives that away: it also runs attention and normalisation in bfloat16, which are slower there than in float32.
So there only linear layers multiply in it. Without AMX (avx512_bf16 alone) they were half as fast as in float32, so all
stays float32.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

MIN_WIDTH = 96
"""Narrower layers lose more by conversion than they gain."""


def fast_products(module: nn.Module, device: torch.device) -> AbstractContextManager:
    """A context in which `module` multiplies in bfloat16, if `device` is faster so."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return bfloat16_products(module) if torch.cpu.get_capabilities().get("amx_bf16") else nullcontext()


class _Product(torch.autograd.Function):
    """x W^T + b, forward and backward, with bfloat16 factors and float32 results.

    `ctx` is torch's context, which takes any attribute.
    x (..., in), weight (out, in), bias (out,) or None, all float32; gives (..., out). The bias gets an exact gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        x, weight = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        return F.linear(x, weight, None if bias is None else bias.bfloat16()).float()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        x, weight = ctx.saved_tensors
        rounded = grad.bfloat16()
        grad_weight = (rounded.flatten(0, -2).t() @ x.flatten(0, -2)).float()
        return (rounded @ weight).float(), grad_weight, grad.flatten(0, -2).sum(0) if ctx.biased else None


class Bfloat16Linear(nn.Linear):
    """A float32 Linear that multiplies in bfloat16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in) float32 -> (..., out) float32."""
        return _Product.apply(x, self.weight, self.bias)


@contextmanager
def bfloat16_products(module: nn.Module) -> Iterator[None]:
    """Within the context every wide Linear of `module` is a Bfloat16Linear; its parameters are the same objects."""
    layers = [layer for layer in module.modules() if type(layer) is nn.Linear and min(layer.weight.shape) >= MIN_WIDTH]
    for layer in layers:
        layer.__class__ = Bfloat16Linear
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = nn.Linear
