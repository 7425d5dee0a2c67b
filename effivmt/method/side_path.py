"""A LoRA beside a Linear of low precision: merged into bfloat16 weights, a small update would be rounded away."""

import torch
from torch import nn
from torch.nn import functional as F


class SidedLinear(nn.Linear):
    """y = W x + b + up down x, with W and b of another Linear, down (R, in) and up (out, R) in float32.

    The products and their sum are in float32 and rounded once: a W x that is rounded already would swallow an update of
    less than half a unit in its last place. It shares the memory of W and b.
    """

    def __init__(self, linear: nn.Linear, down: torch.Tensor, up: torch.Tensor) -> None:
        has_bias, dtype = linear.bias is not None, linear.weight.dtype
        super().__init__(linear.in_features, linear.out_features, bias=has_bias, device="meta", dtype=dtype)
        self.weight, self.bias = linear.weight, linear.bias
        self.down, self.up = down, up

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        exact = x.float()
        if x.is_cuda and x.dtype == self.weight.dtype != torch.float32:  # summed in float32, with no copy of the weight
            base = torch.mm(x.flatten(0, -2), self.weight.T, out_dtype=torch.float32).unflatten(0, x.shape[:-1])
            base = base if self.bias is None else base + self.bias
        else:
            base = F.linear(exact, self.weight.float(), None if self.bias is None else self.bias.float())
        return (base + F.linear(F.linear(exact, self.down), self.up)).to(x.dtype)
