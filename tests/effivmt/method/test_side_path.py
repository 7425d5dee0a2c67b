"""A LoRA on bfloat16 weights has the effect that it has on float32 ones, merged or not, split by heads or not."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from effivmt.method.adapter import fused
from effivmt.method.dual_path import dual_path
from effivmt.method.heads import label_heads

RATIOS = [0.1, 0.03, 0.01, 0.003]
MERGED = [0.017, 0.055, 0.17, 0.5]
"""The error of the effect where the update is merged into bfloat16 weights, for each ratio."""
MODULE = "blocks.0.attn1.to_q"
STRENGTH = 0.3


class Attention(nn.Module):
    """One projection under the name that it has in a transformer."""

    device = torch.device("cpu")

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"attn1": nn.ModuleDict({"to_q": linear})})])


def lora_for(linear: nn.Linear, ratio: float, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B of rank 4, of which `STRENGTH` B A has `ratio` times the norm of the weight."""
    down = torch.randn(4, linear.in_features, generator=random)
    up = torch.randn(linear.out_features, 4, generator=random)
    return down, up * ratio * linear.weight.float().norm() / (STRENGTH * (up @ down).norm())


def mean_change(before: nn.Module, after: nn.Module, width: int) -> torch.Tensor:
    """The change of a Linear's matrix by what it does to half a million inputs, over which rounding averages out."""
    random, inner, outer = torch.Generator().manual_seed(1), 0.0, 0.0
    for _ in range(8):
        x = torch.randn(2**16, width, generator=random).bfloat16()
        change = (after(x).float() - before(x).float()).double()
        inner, outer = inner + x.double().T @ x.double(), outer + x.double().T @ change
    return torch.linalg.solve(inner, outer).T.float()


@pytest.mark.parametrize(("ratio", "merged_error"), list(zip(RATIOS, MERGED, strict=True)))
@torch.no_grad()
def test_the_effect_is_kept_where_merging_would_round_it_away(ratio, merged_error):
    random = torch.Generator().manual_seed(0)
    linear = nn.Linear(16, 16, dtype=torch.bfloat16)
    linear.weight.copy_(torch.randn(linear.weight.shape, generator=random))
    linear.bias.zero_()
    down, up = lora_for(linear, ratio, random)
    delta = STRENGTH * up @ down
    rounded = deepcopy(linear)
    rounded.weight.copy_(linear.weight.float() + delta)
    lora = {f"transformer.{MODULE}.lora_A.weight": down, f"transformer.{MODULE}.lora_B.weight": up}
    model = Attention(linear)
    with fused(model, {"temporal": (lora, STRENGTH)}):
        change = mean_change(linear, model.get_submodule(MODULE), 16)
    assert model.get_submodule(MODULE) is linear
    assert (change - delta).norm() / delta.norm() < 0.01
    error = (rounded.weight.float() - linear.weight.float() - delta).norm() / delta.norm()
    assert merged_error / 1.4 < error < merged_error * 1.4


@torch.no_grad()
def test_a_split_transformer_keeps_the_lora_beside_its_weights(backbone):
    """Stage 3 splits a transformer that has the appearance LoRA."""
    transformer, random = deepcopy(backbone.transformer).bfloat16(), torch.Generator().manual_seed(0)
    lora = {}
    for name, linear in transformer.named_modules():
        if ".attn1." in name and isinstance(linear, nn.Linear):
            down, up = lora_for(linear, 0.5, random)
            lora |= {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
    heads = label_heads(np.array([[0.1, 0.9, 0.9, 0.1], [0.9] * 4]), np.full((2, 4), 0.5), 1.0)
    inputs = torch.randn(1, 4, 2, 4, 4, generator=random).bfloat16(), torch.tensor([500]), torch.zeros(1, 3, 16)
    inputs = (*inputs[:2], inputs[2].bfloat16())

    def output() -> torch.Tensor:
        return transformer(*inputs, return_dict=False)[0].float()

    plain = output()
    with fused(transformer, {"spatial": (lora, 1.0)}):
        assert transformer.dtype == torch.bfloat16
        whole = output()
        with dual_path(transformer, heads):
            split = output()
        assert torch.equal(output(), whole)
    assert torch.equal(output(), plain)
    effect = (whole - plain).norm()
    assert effect > 0.1 * plain.norm()
    assert (split - whole).norm() < 0.1 * effect
