"""A LoRA on the heads of one kind of a self-attention: it is added to their channels of the frozen projections alone.

Each projection stays one product with the frozen weight, in the stock order of heads. The backward passes are written
out: the gradients of an input that q, k and v share are summed within the products, and nothing is computed for an
input that needs no gradient. The master weights are float32; products are in the precision of the activations.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import nn
from torch.autograd.function import once_differentiable

from effivmt.method.side_path import SidedLinear

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True)
class HeadChannels:
    """The channels of some of `count` heads: `own` int64 (n,) in stock order; None: of all."""

    own: torch.Tensor | None
    count: int

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """The channels (S, c) of x (S, C)."""
        return x if self.own is None else x.unflatten(1, (self.count, -1)).index_select(1, self.own).flatten(1)

    def add(self, y: torch.Tensor, inner: torch.Tensor, weight: torch.Tensor) -> None:
        """Adds inner (S, R) times weight (R, c) in place to the channels of y (S, C).

        On a GPU the weight is filled up with zeros: one product, where adding to some channels would take a pass over
        the product more, and a slower one to be deterministic.
        """
        if self.own is None or y.device.type != "cpu":
            y.addmm_(inner, self.spread(weight))
        else:
            added = (inner @ weight).unflatten(1, (len(self.own), -1))
            y.view(len(y), self.count, -1).index_add_(1, self.own, added)

    def spread(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight (R, c) of these channels as one of all channels (R, C), zero for the others."""
        if self.own is None:
            return weight
        parts = weight.unflatten(1, (len(self.own), -1))
        whole = weight.new_zeros(len(weight), self.count, parts.shape[2])
        return whole.index_copy_(1, self.own, parts).flatten(1)


@dataclass(frozen=True)
class BranchLora:
    """float32 leaves of one layer: A (3, R, C) and B (3, c, R) of q, k and v, A (R, c) and B (C, R) of the output."""

    heads: HeadChannels
    down: torch.Tensor
    up: torch.Tensor
    out_down: torch.Tensor
    out_up: torch.Tensor

    @property
    def parameters(self) -> list[torch.Tensor]:
        """What an optimizer steps on."""
        return [self.down, self.up, self.out_down, self.out_up]

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """A and B of each projection by name, such as `to_q` and `lora_A`; they share the memory of the leaves."""
        pairs = [*zip(self.down.detach(), self.up.detach(), strict=True)]
        pairs.append((self.out_down.detach(), self.out_up.detach()))
        return {
            f"{projection}.{side}": weight
            for projection, pair in zip(PROJECTIONS, pairs, strict=True)
            for side, weight in zip(("lora_A", "lora_B"), pair, strict=True)
        }


def empty_lora(width: int, rank: int, heads: HeadChannels, device: torch.device) -> BranchLora:
    """A LoRA of `rank` on some heads of a self-attention of `width` channels, of no values yet."""
    channels = width if heads.own is None else len(heads.own) * width // heads.count
    shapes = ((3, rank, width), (3, channels, rank), (rank, channels), (width, rank))
    return BranchLora(heads, *(torch.empty(shape, device=device, requires_grad=True) for shape in shapes))


def project_in(
    x: torch.Tensor, attention: WanAttention, lora: BranchLora | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k and v (B, S, C) of x (B, S, C), before norm and RoPE."""
    down, up, heads = (None, None, None) if lora is None else (lora.down, lora.up, lora.heads)
    linears = (attention.to_q, attention.to_k, attention.to_v)
    return _ProjectIn.apply(x, down, up, heads, linears)


def project_out(x: torch.Tensor, attention: WanAttention, lora: BranchLora | None) -> torch.Tensor:
    """The output (B, S, C) of a self-attention whose heads gave x (B, S, C)."""
    if lora is None:
        return attention.to_out[0](x)
    return _ProjectOut.apply(x, lora.out_down, lora.out_up, lora.heads, attention.to_out[0])


class _ProjectIn(torch.autograd.Function):
    """x W^T + b for q, k and v, with x A^T B^T added to the channels of some heads."""

    @staticmethod
    def forward(  # noqa: PLR0917  (torch calls it by position)
        ctx: Any,
        x: torch.Tensor,
        down: torch.Tensor | None,
        up: torch.Tensor | None,
        heads: HeadChannels | None,
        linears: Sequence[nn.Linear],
    ) -> tuple[torch.Tensor, ...]:
        outputs = tuple(linear(x) for linear in linears)
        ctx.heads, ctx.linears = heads, linears
        if down is not None and up is not None and heads is not None:
            inner = x.flatten(0, 1) @ down.flatten(0, 1).T.to(x.dtype)
            for y, part, weight in zip(outputs, inner.chunk(3, dim=1), up.to(x.dtype), strict=True):
                heads.add(y.view(-1, y.shape[-1]), part, weight.T)
            ctx.save_for_backward(x, inner, down, up)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        x_gradient = down_gradient = up_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = _input_gradient(flat, ctx.linears)
        if ctx.heads is not None:
            x, inner, down, up = ctx.saved_tensors
            own = [ctx.heads.of(gradient) for gradient in flat]
            up_gradient = torch.stack(
                [gradient.T @ part for gradient, part in zip(own, inner.chunk(3, dim=1), strict=True)]
            )
            inner_gradient = torch.cat(
                [gradient @ weight for gradient, weight in zip(own, up.to(x.dtype), strict=True)], dim=1
            )
            down_gradient = (inner_gradient.T @ x.flatten(0, 1)).unflatten(0, (3, -1)).to(down.dtype)
            up_gradient = up_gradient.to(up.dtype)
            if x_gradient is not None:
                x_gradient.addmm_(inner_gradient, down.flatten(0, 1).to(x.dtype))
        if x_gradient is not None:
            x_gradient = x_gradient.view(gradients[0].shape[:-1] + x_gradient.shape[-1:])
        return x_gradient, down_gradient, up_gradient, None, None


class _ProjectOut(torch.autograd.Function):
    """x W^T + b, with A^T B^T applied to the channels of some heads of x."""

    @staticmethod
    def forward(  # noqa: PLR0917  (torch calls it by position)
        ctx: Any, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor, heads: HeadChannels, linear: nn.Linear
    ) -> torch.Tensor:
        y: torch.Tensor = linear(x)
        inner = heads.of(x.flatten(0, 1)) @ down.T.to(x.dtype)
        y.view(-1, y.shape[-1]).addmm_(inner, up.T.to(x.dtype))
        ctx.heads, ctx.linear = heads, linear
        ctx.save_for_backward(x, inner, down, up)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, inner, down, up = ctx.saved_tensors
        flat = gradient.reshape(-1, gradient.shape[-1])
        inner_gradient = flat @ up.to(x.dtype)
        own = ctx.heads.of(x.flatten(0, 1))
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = _input_gradient([flat], [ctx.linear])
            ctx.heads.add(x_gradient, inner_gradient, down.to(x.dtype))
            x_gradient = x_gradient.view(x.shape)
        down_gradient, up_gradient = (inner_gradient.T @ own).to(down.dtype), (flat.T @ inner).to(up.dtype)
        return x_gradient, down_gradient, up_gradient, None, None


def _input_gradient(gradients: Sequence[torch.Tensor], linears: Sequence[nn.Linear]) -> torch.Tensor:
    """The gradient (S, in) of the input that Linears share, from those of their outputs (S, out).

    Weights that are kept in 8 bits are cast up for it.
    """
    total = gradients[0] @ linears[0].weight.to(gradients[0].dtype)
    for gradient, linear in zip(gradients[1:], linears[1:], strict=True):
        total.addmm_(gradient, linear.weight.to(gradient.dtype))
    for gradient, linear in zip(gradients, linears, strict=True):
        if isinstance(linear, SidedLinear):
            total += (gradient.to(linear.up.dtype) @ linear.up @ linear.down).to(total.dtype)
    return total
