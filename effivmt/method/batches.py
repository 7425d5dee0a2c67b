"""The batches of the tuning stages: sparse frames with their positions, and a first frame that is given."""

from dataclasses import dataclass, replace

import torch

from effivmt.config import SamplingParams
from effivmt.method.prediction import FirstFrame
from effivmt.method.rope import RopeMode, anchored_indices, sampled_indices, time_positions


@dataclass(frozen=True)
class Batch:
    """latents (B, C, F, h, w) and, for sparse frames, their time positions (B, F), or None for stock positions.

    weights (B, 1, F, h, w), in [0, 1]: how much each position counts in the losses; None: all alike. first: the first
    frame of each sample, where it is given.
    """

    latents: torch.Tensor
    positions: torch.Tensor | None
    weights: torch.Tensor | None = None
    first: FirstFrame | None = None


@dataclass(frozen=True)
class SparseBatch(Batch):
    """A batch of sparsely sampled frames, which always has time positions."""

    positions: torch.Tensor


def sparse_batch(
    latents: torch.Tensor,
    sampling: SamplingParams,
    rope: RopeMode,
    *,
    num_frames: int,
    batch: int,
    random: torch.Generator,
) -> SparseBatch:
    """`batch` draws of `sampling` from `random`: latents (B, C, F', h, w) and their time positions (B, F').

    `latents` and `num_frames` as for `tune_temporal`. A clip that has fewer latent frames than `sampling` keeps is
    taken whole.
    """
    whole = latents.shape[2]
    count = min(sampling.latent_frames, whole)
    if sampling.mode == "pixel":
        phases = torch.randint(sampling.phases, (batch,), generator=random)
        kept = min(sampling.frames, num_frames)
        places = [sampled_indices(num_frames, kept, phase / sampling.phases) for phase in phases.tolist()]
        positions = torch.stack([time_positions(rope, at, num_frames, latent=False) for at in places])
        return SparseBatch(latents[phases], positions)
    if sampling.mode == "dense" or count == whole:
        indices = torch.arange(whole).expand(batch, -1)
    elif sampling.mode == "anchored":
        indices = anchored_indices(whole, count, batch, random)
    else:
        phases = torch.randint(sampling.phases, (batch,), generator=random)
        indices = torch.stack([sampled_indices(whole, count, phase / sampling.phases) for phase in phases.tolist()])
    positions = torch.stack([time_positions(rope, at, whole, latent=True) for at in indices])
    return SparseBatch(torch.cat([latents[:, :, at] for at in indices]), positions)


def first_of_batch(first: FirstFrame, drawn: torch.Tensor) -> FirstFrame:
    """The first frame of each sample of a batch, of which `drawn` has the latents at the sampled latent frames.

    Without the embedding, which the blocks hold.
    """
    return replace(first, latents=drawn[:, :, :1] if first.clean else drawn, embedding=None)
