"""A LoRA on bfloat16 weights has the effect that it has on float32 ones, merged or not, split by heads or not."""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from effivmt.method.adapter import fused
from effivmt.method.dual_path import dual_path
from effivmt.method.heads import label_heads
from effivmt.method.side_path import SidedLinear, SidedProduct
from effivmt.planning.counting import counted

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


@pytest.fixture
def product_in_float32() -> Iterator[None]:
    """Gives the processor the product of low precision with a result in float32, which torch has for GPUs alone."""
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("mm.dtype", lambda a, b, dtype: a.to(dtype) @ b.to(dtype), "CPU")
        yield


@pytest.mark.parametrize("ratio", RATIOS)
@torch.no_grad()
def test_the_effect_is_kept_by_the_products_of_a_gpu(ratio, product_in_float32):
    random = torch.Generator().manual_seed(0)
    linear = nn.Linear(16, 16, dtype=torch.bfloat16)
    linear.weight.copy_(torch.randn(linear.weight.shape, generator=random))
    down, up = lora_for(linear, ratio, random)
    delta = STRENGTH * up @ down
    sides = down.bfloat16(), (STRENGTH * up).bfloat16()
    change = mean_change(linear, lambda x: SidedProduct.apply(x, linear.weight, linear.bias, *sides), 16)
    assert (change - delta).norm() / delta.norm() < 0.01


def test_the_products_of_a_gpu_have_the_gradient_of_their_input(product_in_float32):
    random = torch.Generator().manual_seed(0)
    x, weight, bias, down, up = (
        torch.randn(shape, generator=random).bfloat16() for shape in ((2, 3, 8), (6, 8), (6,), (4, 8), (6, 4))
    )
    outputs, gradients = [], []
    for product in (SidedProduct.apply, lambda x, w, b, a, c: nn.functional.linear(x, w, b) + x @ a.T @ c.T):
        leaf = x.clone().requires_grad_()
        outputs.append(product(leaf, weight, bias, down, up))
        outputs[-1].float().square().sum().backward()
        gradients.append(leaf.grad)
    for ours, plain in (outputs, gradients):
        assert ours.dtype == torch.bfloat16 and ours.shape == plain.shape
        assert (ours.float() - plain.float()).norm() < 0.02 * plain.float().norm()


def test_without_data_it_takes_what_it_takes_on_a_gpu():
    """No copy of the weight in float32: a plan counts the output in both precisions and the inner product."""
    with torch.device("meta"):
        linear = nn.Linear(512, 512, dtype=torch.bfloat16).requires_grad_(False)
        x, down, up = torch.empty(1, 16, 512), torch.empty(4, 512), torch.empty(512, 4)
    sided, x = SidedLinear(linear, down.bfloat16(), up.bfloat16()), x.bfloat16()
    with torch.no_grad(), counted([linear]) as counter:
        held = counter.peak
        assert sided(x).dtype == torch.bfloat16
    assert counter.peak - held < 3 * 4 * 16 * 512 < linear.weight.nbytes


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
