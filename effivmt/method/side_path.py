"""A LoRA beside a Linear of low precision: merged into bfloat16 weights, a small update would be rounded away."""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class SidedLinear(nn.Linear):
    """y = W x + b + up down x, with W and b of another Linear, down (R, in) and up (out, R).

    The sum is in float32 and rounded once: a W x that is rounded already would swallow an update of less than half a
    unit in its last place. On a processor down and up are float32 and so are all products. On a GPU they have the
    precision of x, whose products a GPU sums up in float32 at full speed. It shares the memory of W and b.
    """

    def __init__(self, linear: nn.Linear, down: torch.Tensor, up: torch.Tensor) -> None:
        has_bias, dtype = linear.bias is not None, linear.weight.dtype
        super().__init__(linear.in_features, linear.out_features, bias=has_bias, device="meta", dtype=dtype)
        self.weight, self.bias = linear.weight, linear.bias
        self.down, self.up = down, up

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type != "cpu":
            return SidedProduct.apply(x, self.weight.to(x.dtype), self.bias, self.down, self.up)
        exact = x.float()
        base = F.linear(exact, self.weight.float(), None if self.bias is None else self.bias.float())
        return (base + F.linear(F.linear(exact, self.down), self.up)).to(x.dtype)


class SidedProduct(torch.autograd.Function):
    """x W^T + b + x down^T up^T on a GPU, all of one low precision, summed in float32; a gradient of x alone."""

    @staticmethod
    def forward(  # noqa: PLR0917  (torch calls it by position)
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        total = torch.mm(flat, weight.T, out_dtype=torch.float32)
        total += torch.mm(flat @ down.T, up.T, out_dtype=torch.float32)
        if bias is not None:
            total += bias
        ctx.save_for_backward(weight, down, up)
        return total.to(x.dtype).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, down, up = ctx.saved_tensors
        return gradient @ weight + gradient @ up @ down, None, None, None, None
