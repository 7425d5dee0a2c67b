"""Stage 1b: the dual path. Each self-attention's heads are permuted so that the spatial ones come first, and each of
its projections is split in two, so that a LoRA can live on one kind of heads alone (paper, section 3.3).

The split transformer computes what the stock one does, to float rounding, with diffusers' own attention processor.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformer3DModel
from torch import nn

from effivmt.method.heads import BRANCHES, HeadMap, self_attentions
from effivmt.method.low_memory import cast_as
from effivmt.method.side_path import SidedLinear

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


class SplitOutput(nn.Module):
    """A Linear whose outputs are split by head kind; `spatial` or `temporal` is None where a layer has no such head."""

    def __init__(self, linear: nn.Linear, spatial: torch.Tensor, temporal: torch.Tensor) -> None:
        super().__init__()
        self.spatial = _rows(linear, spatial)
        self.temporal = _rows(linear, temporal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([half(x) for half in (self.spatial, self.temporal) if half is not None], dim=-1)


class SplitInput(nn.Module):
    """A Linear whose inputs are split by head kind and whose halves are summed; the first half holds the bias."""

    def __init__(self, linear: nn.Linear, spatial: torch.Tensor, temporal: torch.Tensor) -> None:
        super().__init__()
        self.spatial = _columns(linear, spatial, bias=True)
        self.temporal = _columns(linear, temporal, bias=self.spatial is None)
        self.num_spatial = len(spatial)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.spatial is None or self.temporal is None:
            (whole,) = (half for half in (self.spatial, self.temporal) if half is not None)
            return whole(x)
        return self.spatial(x[..., : self.num_spatial]) + self.temporal(x[..., self.num_spatial :])


@contextmanager
def dual_path(transformer: WanTransformer3DModel, heads: HeadMap) -> Iterator[WanTransformer3DModel]:
    """Splits `transformer` in place by the head map while the context lasts; afterwards it is stock again, bit for bit.

    Where the head map is not decoupled nothing is split, but a LoRA that was put on the projections is removed as well.
    Raises ValueError where the head map has another number of layers or heads than the transformer.
    """
    shape = (transformer.config["num_layers"], transformer.config["num_attention_heads"])
    if heads.is_temporal.shape != shape:
        raise ValueError(
            f"the head map is of {heads.is_temporal.shape[0]} layers x {heads.is_temporal.shape[1]} heads but the "
            f"transformer has {shape[0]} x {shape[1]}; classify its heads again"
        )
    attentions = self_attentions(transformer)
    stock = [_stock_modules(attention) for attention in attentions]
    try:
        for attention, is_temporal in zip(attentions, heads.is_temporal, strict=True):
            if heads.decoupled:
                _split(attention, is_temporal)
        yield transformer
    finally:
        for attention, modules in zip(attentions, stock, strict=True):
            for name, module in modules.items():
                attention.set_submodule(name, module)


def channels_of(is_temporal: np.ndarray, head_width: int) -> dict[str, torch.Tensor]:
    """Channel indices int64 of each branch in the stock order, for one layer's heads bool (N,)."""
    kind = torch.from_numpy(np.repeat(is_temporal, head_width))
    return {"spatial": (~kind).nonzero().flatten(), "temporal": kind.nonzero().flatten()}


def branch_parameters(transformer: nn.Module, branch: str) -> dict[str, torch.Tensor]:
    """The base weights, by name, of one branch of a split transformer."""
    assert branch in BRANCHES
    return {name: tensor for name, tensor in transformer.named_parameters() if f".{branch}." in name}


def _stock_modules(attention: WanAttention) -> dict[str, nn.Module]:
    """What `_split` replaces in one self-attention."""
    return {name: attention.get_submodule(name) for name in (*PROJECTIONS, "norm_q", "norm_k")}


def _split(attention: WanAttention, is_temporal: np.ndarray) -> None:
    channels = channels_of(is_temporal, attention.inner_dim // attention.heads)
    spatial, temporal = channels["spatial"], channels["temporal"]
    order = torch.cat([spatial, temporal])
    split_projections = {
        "to_q": SplitOutput(attention.to_q, spatial, temporal),
        "to_k": SplitOutput(attention.to_k, spatial, temporal),
        "to_v": SplitOutput(attention.to_v, spatial, temporal),
        "norm_q": _permuted_norm(attention.norm_q, order),
        "norm_k": _permuted_norm(attention.norm_k, order),
        "to_out.0": SplitInput(cast(nn.Linear, attention.to_out[0]), spatial, temporal),  # torch says Module
    }
    for name, module in split_projections.items():
        attention.set_submodule(name, module)


def _rows(linear: nn.Linear, channels: torch.Tensor) -> nn.Linear | None:
    if not len(channels):
        return None
    channels = channels.to(linear.weight.device)
    half = _linear(linear.weight[channels], linear.bias[channels])
    return (
        SidedLinear(half, linear.down, linear.up[channels])
        if isinstance(linear, SidedLinear)
        else cast_as(half, linear)
    )


def _columns(linear: nn.Linear, channels: torch.Tensor, *, bias: bool) -> nn.Linear | None:
    if not len(channels):
        return None
    channels = channels.to(linear.weight.device)
    half = _linear(linear.weight[:, channels], linear.bias if bias else None)
    return (
        SidedLinear(half, linear.down[:, channels], linear.up)
        if isinstance(linear, SidedLinear)
        else cast_as(half, linear)
    )


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    half = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta", dtype=weight.dtype)
    half.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        half.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return half


def _permuted_norm(norm: nn.RMSNorm, order: torch.Tensor) -> nn.RMSNorm:
    permuted = nn.RMSNorm(norm.normalized_shape, eps=norm.eps, device="meta", dtype=norm.weight.dtype)
    permuted.weight = nn.Parameter(norm.weight.detach()[order.to(norm.weight.device)], requires_grad=False)
    return permuted
