"""A merged adapter changes the weights by the sum of its parts' changes, and loads as any."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from effivmt.errors import AdapterError
from effivmt.method.adapter import Adapter, fused, load_adapter, save_adapter
from effivmt.method.adapter_merge import Part, merge_adapters


@pytest.fixture
def first(tuned) -> Adapter:
    return load_adapter(tuned.folder)


@pytest.fixture
def other(first) -> Adapter:
    """An adapter of other weights and of another head map."""
    heads = replace(first.heads, is_temporal=~first.heads.is_temporal)
    spatial, temporal = (
        {name: weight.flip(0) * 0.5 for name, weight in weights.items()} for weights in (first.spatial, first.temporal)
    )
    return Adapter(spatial, temporal, heads, first.facts)


def change(backbone, branches) -> torch.Tensor:
    """What LoRAs add to a projection's weight."""
    name = "blocks.1.attn1.to_q"
    before = backbone.transformer.get_submodule(name).weight.clone()
    with fused(backbone.transformer, branches) as transformer:
        return transformer.get_submodule(name).weight - before


def test_changes_add_up_at_their_strengths(backbone, first, other) -> None:
    merged = merge_adapters([Part(first, 0.5, 1.0), Part(other, 2.0, -0.0)])
    found = change(backbone, {"a": (merged.spatial, 1.0), "b": (merged.temporal, 1.0)})
    expected = change(backbone, {"a": (first.spatial, 0.5), "b": (first.temporal, 1.0), "c": (other.spatial, 2.0)})
    assert found.abs().max() > 0.01 and torch.allclose(found, expected, atol=1e-6)
    ranks = [
        len(weights["transformer.blocks.1.attn1.to_q.lora_A.weight"]) for weights in (first.spatial, first.temporal)
    ]
    assert merged.facts["ranks"] == {"spatial": 2 * ranks[0], "temporal": ranks[1]}
    assert [(one["appearance"], one["motion"]) for one in merged.facts["merged"]] == [(0.5, 1.0), (2.0, 0.0)]
    assert merged.heads.is_temporal.all()  # each head is temporal in one of the two maps
    np.testing.assert_allclose(merged.heads.spatial, first.heads.spatial)


def test_it_is_an_adapter_folder_that_stock_diffusers_loads(backbone_folder, first, other, tmp_path) -> None:
    merged = merge_adapters([Part(first, 1.0, 1.0), Part(other, 1.0, 0.5)])
    save_adapter(tmp_path / "both", merged.spatial, merged.temporal, merged.heads, facts=merged.facts)
    again = load_adapter(tmp_path / "both")
    assert all(torch.equal(again.temporal[name], weight) for name, weight in merged.temporal.items())
    pipe = WanPipeline.from_pretrained(backbone_folder)
    pipe.load_lora_weights(str(tmp_path / "both"), weight_name="temporal.safetensors", adapter_name="motion")
    assert pipe.get_active_adapters() == ["motion"]
    card = (tmp_path / "both" / "README.md").read_text(encoding="utf-8")
    assert "merged" in card and '"motion": 0.5' in card


def test_adapters_of_two_backbones_are_refused(first, other) -> None:
    facts = first.facts | {"backbone": {"id": "another", "digest": "1" * 64}}
    with pytest.raises(AdapterError, match=r"different backbones, wan-random .* and another .digest 1111"):
        merge_adapters([Part(first, 1.0, 1.0), Part(replace(other, facts=facts), 1.0, 1.0)])
    heads = replace(other.heads, is_temporal=other.heads.is_temporal[:1])
    with pytest.raises(AdapterError, match="head maps"):
        merge_adapters([Part(first, 1.0, 1.0), Part(replace(other, heads=heads), 1.0, 1.0)])


def test_a_merger_of_nothing_is_refused(first, other) -> None:
    with pytest.raises(AdapterError, match="two or more"):
        merge_adapters([Part(first, 1.0, 1.0)])
    with pytest.raises(AdapterError, match="every strength of the merger is 0"):
        merge_adapters([Part(first, 0.0, 0.0), Part(other, 0.0, 0.0)])
