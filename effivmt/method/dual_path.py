"""Stage 1b: the dual path. Each self-attention's heads are permuted so that the spatial ones come first, and each of
its projections is split in two, so that a LoRA can live on one kind of heads alone (paper, section 3.3).

The split transformer computes what the stock one does, to float rounding, with diffusers' own attention processor.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from torch import nn

from effivmt.method.heads import BRANCHES, HeadMap

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
        if self.temporal is None:
            return self.spatial(x)
        if self.spatial is None:
            return self.temporal(x)
        return self.spatial(x[..., : self.num_spatial]) + self.temporal(x[..., self.num_spatial :])


@contextmanager
def dual_path(transformer: WanTransformer3DModel, heads: HeadMap) -> Iterator[WanTransformer3DModel]:
    """Splits `transformer` in place by the head map while the context lasts; afterwards it is stock again, bit for bit.

    Where the head map is not decoupled nothing is split; a LoRA that is put on the projections goes all the same.
    Raises ValueError where the head map has another number of layers or heads than the transformer.
    """
    config = transformer.config
    if heads.is_temporal.shape != (config.num_layers, config.num_attention_heads):
        raise ValueError(
            f"the head map is of {heads.is_temporal.shape[0]} layers x {heads.is_temporal.shape[1]} heads but the "
            f"transformer has {config.num_layers} x {config.num_attention_heads}; classify its heads again"
        )
    stock = [_stock_modules(block.attn1) for block in transformer.blocks]
    try:
        for block, is_temporal in zip(transformer.blocks, heads.is_temporal, strict=True):
            if heads.decoupled:
                _split(block.attn1, is_temporal)
        yield transformer
    finally:
        for block, modules in zip(transformer.blocks, stock, strict=True):
            _put_back(block.attn1, modules)


def channels_of(is_temporal: np.ndarray, head_width: int) -> dict[str, torch.Tensor]:
    """Channel indices int64 of each branch in the stock order, for one layer's heads bool (N,)."""
    kind = torch.from_numpy(np.repeat(is_temporal, head_width))
    return {"spatial": (~kind).nonzero().flatten(), "temporal": kind.nonzero().flatten()}


def branch_parameters(transformer: nn.Module, branch: str) -> dict[str, torch.Tensor]:
    """The base weights, by name, of one branch of a split transformer."""
    assert branch in BRANCHES
    return {name: tensor for name, tensor in transformer.named_parameters() if f".{branch}." in name}


def _stock_modules(attention: nn.Module) -> dict[str, nn.Module]:
    """What `_split` replaces in one self-attention."""
    return {name: attention.get_submodule(name) for name in (*PROJECTIONS, "norm_q", "norm_k")}


def _split(attention: nn.Module, is_temporal: np.ndarray) -> None:
    stock = _stock_modules(attention)
    channels = channels_of(is_temporal, attention.inner_dim // attention.heads)
    spatial, temporal = channels["spatial"], channels["temporal"]
    for name in ("to_q", "to_k", "to_v"):
        setattr(attention, name, SplitOutput(stock[name], spatial, temporal))
    for name in ("norm_q", "norm_k"):
        setattr(attention, name, _permuted_norm(stock[name], torch.cat([spatial, temporal])))
    attention.to_out[0] = SplitInput(stock["to_out.0"], spatial, temporal)


def _put_back(attention: nn.Module, stock: dict[str, nn.Module]) -> None:
    for name, module in stock.items():
        if name == "to_out.0":
            attention.to_out[0] = module
        else:
            setattr(attention, name, module)


def _rows(linear: nn.Linear, channels: torch.Tensor) -> nn.Linear | None:
    channels = channels.to(linear.weight.device)
    return _linear(linear.weight[channels], linear.bias[channels]) if len(channels) else None


def _columns(linear: nn.Linear, channels: torch.Tensor, *, bias: bool) -> nn.Linear | None:
    channels = channels.to(linear.weight.device)
    return _linear(linear.weight[:, channels], linear.bias if bias else None) if len(channels) else None


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
