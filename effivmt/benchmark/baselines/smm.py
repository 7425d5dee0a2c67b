"""SMM (arXiv 2311.17009, CVPR 2024): guides the latents by differences of spatially averaged features of the frames.

The spatial marginal mean of a latent frame is the mean of a middle block's features over its tokens; it holds pose and
layout but little appearance. The loss compares the direction of its change between any two frames with the reference's.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from pydantic import Field
from torch.nn import functional as F

from effivmt.benchmark.baselines import guided
from effivmt.benchmark.baselines.features import block_at, block_output, token_grid
from effivmt.config import IngestParams, Positive, RenderParams, Section
from effivmt.method.backbone import Backbone
from effivmt.method.losses import add_noise

Rate = Annotated[float, Field(gt=0)]


class SMMParams(Section):
    """SMM's knobs; the defaults are its authors', in shares of their 50 steps."""

    guided_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    """The share of the render steps that are guided, from the first on (20 of 50)."""
    depth: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Where in the transformer the block lies whose output is read."""
    adam_steps: Positive = 10
    """Steps of Adam on the latents before each guided step."""
    learning_rates: tuple[Rate, Rate] = (0.007, 0.004)
    """Of Adam at the first and the last guided step, linear between."""


def generate(
    backbone: Backbone,
    reference: torch.Tensor,
    prompt: torch.Tensor,
    negative: torch.Tensor,
    render: RenderParams,
    size: IngestParams,
    seed: int,
    params: SMMParams,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) for a prompt, with the motion of normalised reference latents (1, C, F, h, w).

    prompt and negative embeddings (tokens, channels). At each guided step the reference is noised to that step's level,
    with the noise that sampling began from (the paper inverts it instead), and read under the negative prompt, which is
    the empty one by default. Errors as of `guided.generate` and `guided.optimise`.
    """
    transformer = backbone.transformer
    block = block_at(transformer, params.depth)
    clean = reference.to(backbone.device)

    def guide(latents: torch.Tensor, moment: guided.Moment) -> torch.Tensor:
        noised = add_noise(clean, moment.noise, torch.tensor([moment.sigma], device=backbone.device))
        target = spatial_means(transformer, block, noised, moment.timestep, negative)

        def loss(latents: torch.Tensor) -> torch.Tensor:
            return smm_loss(spatial_means(transformer, block, latents, moment.timestep, prompt), target)

        return guided.optimise(latents, loss, params.adam_steps, moment.between(*params.learning_rates))

    share = params.guided_share
    return guided.generate(backbone, reference, prompt, negative, render, size, seed, guide, share, progress)


def spatial_means(
    transformer: WanTransformer3DModel, block: int, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """phi: a block's output averaged over each latent frame, float32 (F, channels), for latents (1, C, F, h, w)."""
    features = block_output(transformer, block, latents, timestep, text).float()
    return features.unflatten(0, (token_grid(transformer, latents)[0], -1)).mean(1)


def smm_loss(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """mean over pairs of frames of 1 - cos(D_found, D_target), D_ij = phi_i - phi_j: a scalar in [0, 2].

    found and target (F, channels), F >= 2. A pair (j, i) has the cosine of (i, j), so one of the two is taken.
    """
    first, second = torch.triu_indices(len(found), len(found), 1)
    cosine = F.cosine_similarity(found[first] - found[second], target[first] - target[second], dim=1)
    return 1 - cosine.mean()
