"""Velocities joined by region are those of the adapters alone, each where it acts; the backbone stays as it was."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_bytes

from effivmt.config import IngestParams, Params, RenderParams
from effivmt.errors import EffiVMTError
from effivmt.method.adapter import Adapter, LoraPair, fused, to_stock_layout
from effivmt.method.adapter_merge import Part
from effivmt.method.backbone import Backbone
from effivmt.method.dual_path import add_lora, dual_path
from effivmt.method.heads import label_heads
from effivmt.method.regions import ForwardPass, joined_by_region, shares
from effivmt.method.rendering import render

SIZE = IngestParams(num_frames=9, height=32, width=48)
GRID = (3, 4, 6)
PARAMS = RenderParams(steps=3, guidance_scale=4.0, flow_shift=5.0, motion_boundary=0.9)


def loras(backbone: Backbone, seed: int) -> LoraPair:
    """LoRAs of random weights on both branches."""
    heads = label_heads(np.array([[0.1, 0.9] * 2] * 2), np.full((2, 4), 0.5), 1.0)
    stock, random = [], torch.Generator().manual_seed(seed)
    for branch in ("spatial", "temporal"):
        with dual_path(backbone.transformer, heads):
            weights = add_lora(backbone.transformer, branch, 2, random)
        weights = {name: torch.randn(w.shape, generator=random) * 0.2 for name, w in weights.items()}
        stock.append(to_stock_layout(weights, heads))
    return LoraPair(*stock, heads)


def adapter_of(backbone: Backbone, seed: int, region: torch.Tensor | None = None) -> Adapter:
    pair = loras(backbone, seed)
    low_noise = loras(backbone, seed + 10) if len(backbone.experts) > 1 else None
    return Adapter(pair.spatial, pair.temporal, pair.heads, {"backbone": backbone.found.facts}, low_noise, region)


@pytest.fixture(scope="module")
def prompts(backbone) -> list[torch.Tensor]:
    return backbone.encode_texts(["a green circle on a gray background", "blur"])


@pytest.fixture(scope="module")
def elsewhere(backbone) -> Adapter:
    return adapter_of(backbone, 0)


@pytest.fixture(scope="module")
def thing(backbone) -> Adapter:
    return adapter_of(backbone, 1)


def frames_of(backbone, adapter, prompts, *regional: Part, **changes) -> np.ndarray:
    params = PARAMS.model_copy(update=changes)
    return render(backbone, adapter, *prompts, params=params, size=SIZE, seed=0, regional=regional)


def inputs(sigma: float = 0.95) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    return {
        "hidden_states": torch.randn((1, 4, *GRID), generator=random),
        "timestep": torch.tensor([1000 * sigma]),
        "encoder_hidden_states": torch.randn((1, 8, 16), generator=random),
    }


def velocity(transformer, sigma: float = 0.95, **branches) -> torch.Tensor:
    with torch.no_grad(), fused(transformer, branches):
        return transformer(**inputs(sigma), return_dict=False)[0]


def both(one: LoraPair, appearance: float, motion: float) -> dict[str, tuple[dict[str, torch.Tensor], float]]:
    return {"a": (one.spatial, appearance), "m": (one.temporal, motion)}


def test_each_position_has_the_velocity_of_its_adapter(backbone, elsewhere, thing):
    region = torch.rand((1, 1, *GRID), generator=torch.Generator().manual_seed(4))
    transformer, passes = backbone.transformer, [ForwardPass(elsewhere, 0.5, 1.0), ForwardPass(thing, 0.25, 0.75)]
    with joined_by_region(transformer, passes[0], [(passes[1], region)], motion_boundary=0.9):
        found, below = (velocity(transformer, sigma) for sigma in (0.95, 0.5))
    outside, inside = (
        velocity(transformer, **both(elsewhere, 0.5, 1.0)),
        velocity(transformer, **both(thing, 0.25, 0.75)),
    )
    assert (outside - inside).abs().max() > 0.1
    assert torch.allclose(found, (1 - region) * outside + region * inside, atol=1e-6)
    outside, inside = (velocity(transformer, 0.5, a=(one.spatial, at)) for one, at in ((elsewhere, 0.5), (thing, 0.25)))
    assert torch.allclose(below, (1 - region) * outside + region * inside, atol=1e-6)  # the motion LoRAs have ended


def test_where_nothing_is_added_there_is_one_pass(backbone, elsewhere, thing):
    transformer, passes = backbone.transformer, [ForwardPass(elsewhere, 0.0, 1.0), ForwardPass(thing, 0.0, 1.0)]
    calls = []
    handle = transformer.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    with joined_by_region(transformer, passes[0], [(passes[1], torch.ones(1, 1, *GRID))], motion_boundary=0.9):
        below = velocity(transformer, 0.5)
        assert len(calls) == 1
        velocity(transformer, 0.95)
    handle.remove()
    assert len(calls) == 3 and torch.equal(below, velocity(transformer, 0.5))


@pytest.mark.parametrize("alone", [False, True])
def test_a_region_of_everything_or_of_nothing(backbone, elsewhere, thing, prompts, alone):
    base = None if alone else elsewhere
    ones, zeros = (replace(thing, region=torch.full((1, 1, *GRID), value)) for value in (1.0, 0.0))
    whole = frames_of(backbone, thing, prompts, appearance_strength=0.25, motion_strength=0.75)
    assert np.array_equal(frames_of(backbone, base, prompts, Part(ones, 0.25, 0.75)), whole)
    assert np.array_equal(
        frames_of(backbone, base, prompts, Part(zeros, 0.25, 0.75)), frames_of(backbone, base, prompts)
    )


def test_beside_weights_of_low_precision(backbone_folder, elsewhere, thing, prompts):
    settings = Params().backbone.model_copy(update={"path": str(backbone_folder), "dtype": "bfloat16"})
    backbone, half = Backbone(settings), torch.full((1, 1, *GRID), 0.5)
    whole, base = (frames_of(backbone, one, prompts) for one in (thing, elsewhere))
    ones, mixed = (Part(replace(thing, region=region), 0.5, 1.0) for region in (torch.ones_like(half), half))
    assert np.array_equal(frames_of(backbone, elsewhere, prompts, ones), whole)
    between = frames_of(backbone, elsewhere, prompts, mixed).astype(int)
    assert np.abs(between - whole).max() > 1 and np.abs(between - base).max() > 1


def test_each_of_two_transformers_joins_its_own_velocities(a14b_folder, prompts):
    settings = Params().backbone.model_copy(update={"path": str(a14b_folder), "max_sequence_length": 16})
    backbone = Backbone(settings)
    ones = adapter_of(backbone, 1, torch.ones(1, 1, *GRID))
    half = replace(ones, low_noise=None)
    for other in (ones, half):
        whole = frames_of(backbone, other, prompts)
        joined = frames_of(backbone, adapter_of(backbone, 0), prompts, Part(other, 0.5, 1.0))
        assert np.array_equal(joined, whole)


def test_the_backbone_is_as_it_was_also_after_an_exception(backbone, elsewhere, thing, prompts):
    transformer, before = backbone.transformer, to_bytes(backbone.transformer.state_dict())
    part = Part(replace(thing, region=torch.ones(1, 1, *GRID)), 1.0, 1.0)
    frames_of(backbone, elsewhere, prompts, part)
    assert "forward" not in vars(transformer) and to_bytes(transformer.state_dict()) == before
    broken = {name: weight * float("nan") for name, weight in thing.temporal.items()}
    with pytest.raises(EffiVMTError, match="the latents are not finite after step 1"):
        frames_of(backbone, elsewhere, prompts, replace(part, adapter=replace(part.adapter, temporal=broken)))
    with pytest.raises(KeyboardInterrupt):
        handle = transformer.blocks[1].register_forward_pre_hook(interrupt)
        frames_of(backbone, elsewhere, prompts, part)
    handle.remove()
    assert "forward" not in vars(transformer) and to_bytes(transformer.state_dict()) == before


def test_shares_sum_to_one_where_regions_overlap_or_have_another_grid():
    left, all_half = torch.zeros(1, 1, *GRID), torch.full((1, 1, *GRID), 0.5)
    left[..., :3] = 1
    outside, first, second = shares([left, all_half], GRID)
    assert torch.equal(left, shares([left], GRID)[1])
    assert torch.allclose(first[..., 0], torch.tensor(2 / 3)) and torch.allclose(second[..., 0], torch.tensor(1 / 3))
    assert torch.allclose(outside[..., 5], torch.tensor(0.5)) and outside[..., 0].abs().max() < 1e-6
    outside, first = shares([left], (5, 8, 12))
    assert first.shape == (1, 1, 5, 8, 12) and torch.allclose(outside + first, torch.ones(()))
    assert first[..., :5].min() == 1 and first[..., 7:].max() == 0


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
