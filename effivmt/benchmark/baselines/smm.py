"""SMM (arXiv 2311.17009, CVPR 2024): guides the latents by differences of spatially averaged features of the frames.

The spatial marginal mean (SMM) of a latent frame is the mean of a middle block's features over its tokens; it keeps
pose and layout but little appearance. The loss compares the direction in which it changes between any two frames with
that of the reference.
"""

from typing import Annotated

import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from pydantic import Field
from torch.nn import functional as F

from effivmt.benchmark.baselines.features import block_at, block_output, token_grid
from effivmt.config import Positive, Section
from effivmt.method import guided
from effivmt.method.guided import GuidedRequest, SamplingStep
from effivmt.method.losses import add_noise

Rate = Annotated[float, Field(gt=0)]


class SMMParams(Section):
    """Params of SMM; the defaults are its authors', with counts of their 50 render steps given as shares."""

    guided_share: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Share of the render steps that are guided, counted from the first (authors: 20 of 50)."""
    depth: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Depth, from 0 (first) to 1 (last), of the block whose output is read."""
    adam_steps: Positive = 10
    """Adam steps on the latents before each guided step."""
    learning_rates: tuple[Rate, Rate] = (0.007, 0.004)
    """Adam's learning rate at the first and at the last guided step, linear in between."""


def generate(request: GuidedRequest, params: SMMParams) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) that show the prompt with the motion of the reference.

    At each guided step the reference is noised to that step's level with the noise that sampling started from (the
    paper uses DDIM inversion instead) and read under the negative prompt, which is empty by default. Raises as
    `guided.generate` and `guided.optimise` do.
    """
    transformer, device = request.backbone.transformer, request.backbone.device
    block = block_at(transformer, params.depth)
    clean = request.reference.to(device)

    def guide(latents: torch.Tensor, step: SamplingStep) -> torch.Tensor:
        noised = add_noise(clean, step.noise, torch.tensor([step.sigma], device=device))
        target = spatial_means(transformer, block, noised, step.timestep, text=request.negative)

        def loss(latents: torch.Tensor) -> torch.Tensor:
            return smm_loss(spatial_means(transformer, block, latents, step.timestep, text=request.prompt), target)

        return guided.optimise(latents, loss, params.adam_steps, step.interpolate(*params.learning_rates))

    return guided.generate(request, guide, params.guided_share)


def spatial_means(
    transformer: WanTransformer3DModel, block: int, latents: torch.Tensor, timestep: torch.Tensor, *, text: torch.Tensor
) -> torch.Tensor:
    """phi: a block's output averaged over each latent frame, float32 (F, channels).

    Inputs as of `features.block_output`.
    """
    features = block_output(transformer, block, latents, timestep, text=text).float()
    return features.unflatten(0, (token_grid(transformer, latents)[0], -1)).mean(1)


def smm_loss(means: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over pairs of frames of 1 - cos(D_means, D_target), D_ij = phi_i - phi_j: a scalar in [0, 2].

    means and target (F, channels), F >= 2.
    """
    first, second = torch.triu_indices(len(means), len(means), 1)  # the cosine of (j, i) is that of (i, j)
    cosine = F.cosine_similarity(means[first] - means[second], target[first] - target[second], dim=1)
    return 1 - cosine.mean()
