"""Adapters that act in regions of a video: a forward pass for each, and the velocities joined by region.

The sum of LoRAs that have each learned a whole frame gives one motion or the other. So an adapter of an object is asked
in its region alone, and the rest of the frame is left to the others, as regional LoRAs of images are (such as the masks
of ComfyUI's LoRA hooks).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch.nn import functional as F

from effivmt.method.adapter import LoraPair, fused


@dataclass(frozen=True)
class ForwardPass:
    """What is added to a transformer in one forward pass: LoRAs, None for none of it, and their strengths."""

    loras: LoraPair | None
    appearance: float
    motion: float

    def branches(self, *, moving: bool) -> dict[str, tuple[Mapping[str, torch.Tensor], float]]:
        """What `fused` takes; moving: whether the motion LoRA takes part. Empty where nothing is added."""
        if self.loras is None:
            return {}
        branches = {"spatial": (self.loras.spatial, self.appearance)}
        if moving:
            branches["temporal"] = (self.loras.temporal, self.motion)
        return {name: (weights, strength) for name, (weights, strength) in branches.items() if weights and strength}


@contextmanager
def joined_by_region(
    transformer: WanTransformer3DModel,
    elsewhere: ForwardPass,
    regional: Sequence[tuple[ForwardPass, torch.Tensor]],
    *,
    motion_boundary: float,
) -> Iterator[None]:
    """While the context lasts, a transformer's forward gives velocities that are joined by region, as a tuple of one.

    `regional`: passes, each with its region float32 (1, 1, F, h, w) in [0, 1]; `elsewhere` is the pass for what is
    outside of all regions. Motion LoRAs take part down to the noise level `motion_boundary`. Where no pass adds
    anything there is one pass. On leaving, also by an exception, the transformer is as it was.
    """
    passes = [elsewhere, *(one for one, _ in regional)]
    regions = [region for _, region in regional]
    stock = transformer.forward
    replaced = vars(transformer).get("forward")

    def forward(hidden_states: torch.Tensor, timestep: torch.Tensor, *args: Any, **options: Any) -> Any:
        moving = float(timestep.max()) >= 1000 * motion_boundary  # tokens of a clean first frame are at 0
        added = [one.branches(moving=moving) for one in passes]
        if not any(added):
            return stock(hidden_states, timestep, *args, **options)
        joined: Any = 0
        for branches, share in zip(added, shares(regions, hidden_states.shape[2:]), strict=True):
            with fused(transformer, branches):
                velocity = stock(hidden_states, timestep, *args, **options)[0]
            joined = joined + share.to(velocity) * velocity
        return (joined,)

    vars(transformer)["forward"] = forward
    try:
        yield
    finally:
        if replaced is None:
            vars(transformer).pop("forward")
        else:
            vars(transformer)["forward"] = replaced


def shares(regions: Sequence[torch.Tensor], size: Sequence[int]) -> list[torch.Tensor]:
    """How much each pass counts at the positions (F, h, w) of latents: first that outside of all regions, then theirs.

    float32 (1, 1, F, h, w) each, in [0, 1]; at every position they sum to 1. Where regions overlap they count in
    proportion. A region of another grid is stretched to this one, over all of the time and of the frame, and resampled
    linearly.
    """
    fitted = torch.cat([_resampled(region, size) for region in regions])
    fitted = fitted / fitted.sum(0, keepdim=True).clamp(min=1)
    return [(1 - fitted.sum(0, keepdim=True)).clamp(min=0), *fitted.split(1)]


def _resampled(region: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    return F.interpolate(region, size=tuple(size), mode="trilinear", align_corners=False)
