"""Several adapters as one: LoRAs of one transformer add up in the stock layout, whatever their head maps are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from effivmt.errors import AdapterError
from effivmt.method.adapter import Adapter, LoraPair
from effivmt.method.adapter_manifest import AdapterFacts, MergedFacts
from effivmt.method.heads import HeadMap


@dataclass(frozen=True)
class Part:
    """An adapter of a merger, with the strengths of its looks and its motion."""

    adapter: Adapter
    appearance: float
    motion: float


def merge_adapters(parts: Sequence[Part]) -> Adapter:
    """The adapter that changes the weights by the sum of the parts' changes, each at its strengths.

    Ranks add up: the As are stacked, and the Bs, times their strengths, stand side by side. A strength of 0 leaves that
    branch of the part out. The head map has the means of the parts' scores; a head is temporal where half of the maps
    or more say so. Of two transformers each is merged from the parts that have LoRAs of it. Raises AdapterError for
    fewer than two parts, and where they were made for different transformers.
    """
    if len(parts) < 2:
        raise AdapterError(f"a merger was given {len(parts)} adapter, expected two or more")
    for part in parts[1:]:
        _check_same_backbone(parts[0].adapter, part.adapter)
    first = parts[0].adapter
    own = _merged([(part.adapter, part) for part in parts])
    lows = [(part.adapter.low_noise, part) for part in parts if part.adapter.low_noise is not None]
    low_noise = _merged(lows) if lows else None
    if low_noise is not None and not low_noise.spatial and not low_noise.temporal:
        low_noise = None
    merged = [
        MergedFacts(clip=part.adapter.facts.get("clip"), appearance=part.appearance, motion=part.motion)
        for part in parts
    ]
    facts = AdapterFacts(merged=merged, ranks={"spatial": _rank(own.spatial), "temporal": _rank(own.temporal)})
    if "backbone" in first.facts:
        facts["backbone"] = first.facts["backbone"]
    if "pipeline" in first.facts:
        facts["pipeline"] = first.facts["pipeline"]
    if not own.spatial and not own.temporal:
        raise AdapterError("every strength of the merger is 0, so it would change nothing; give one above 0")
    return Adapter(own.spatial, own.temporal, own.heads, facts, low_noise)


def _merged(pairs: Sequence[tuple[LoraPair, Part]]) -> LoraPair:
    """The sum of what the parts have of one transformer."""
    maps = [pair.heads for pair, _ in pairs]
    heads = HeadMap(
        np.mean([one.spatial for one in maps], axis=0),
        np.mean([one.temporal for one in maps], axis=0),
        np.mean([one.is_temporal for one in maps], axis=0) >= 0.5,
        decoupled=all(one.decoupled for one in maps),
    )
    spatial = _sum([(pair.spatial, part.appearance) for pair, part in pairs])
    return LoraPair(spatial, _sum([(pair.temporal, part.motion) for pair, part in pairs]), heads)


def _check_same_backbone(first: Adapter, other: Adapter) -> None:
    ours, theirs = first.facts.get("backbone"), other.facts.get("backbone")
    if ours is not None and theirs is not None:
        of_transformer = "transformer" in ours and "transformer" in theirs
        digests = [facts["transformer"] if of_transformer else facts["digest"] for facts in (ours, theirs)]
        if digests[0] != digests[1]:
            raise AdapterError(
                f"the adapters were made for different backbones, {ours['id']} (digest {digests[0][:12]}) and "
                f"{theirs['id']} (digest {digests[1][:12]}); merge adapters of one backbone"
            )
        seconds = [facts.get("transformer_2") for facts in (ours, theirs)]
        if seconds[0] != seconds[1]:
            raise AdapterError(
                f"the adapters were made for different backbones, {ours['id']} and {theirs['id']}, whose second "
                "transformers are not the same; merge adapters of one backbone"
            )
    if first.heads.is_temporal.shape != other.heads.is_temporal.shape:
        raise AdapterError(
            f"the adapters' head maps have (layers, heads) {first.heads.is_temporal.shape} and "
            f"{other.heads.is_temporal.shape}; merge adapters of one backbone"
        )


def _sum(parts: Sequence[tuple[Mapping[str, torch.Tensor], float]]) -> dict[str, torch.Tensor]:
    """The sum of stock-layout LoRAs, each times its strength, as one LoRA."""
    joined: dict[str, list[torch.Tensor]] = {}
    for weights, strength in parts:
        for name, weight in weights.items() if strength != 0 else ():
            joined.setdefault(name, []).append(weight * strength if ".lora_B." in name else weight)
    return {
        name: torch.cat(tensors, dim=1 if ".lora_B." in name else 0).contiguous() for name, tensors in joined.items()
    }


def _rank(weights: Mapping[str, torch.Tensor]) -> int:
    """The largest rank in stock-layout weights; 0 without any."""
    return max((len(weight) for name, weight in weights.items() if ".lora_A." in name), default=0)
