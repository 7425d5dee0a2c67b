"""FlowMotion (arXiv 2603.06289, CVPR 2026): guides the latents by the clean video that the model already expects.

Early in sampling the prediction x0 = z - sigma v(z) holds the motion. It and its changes between frames are drawn to
those that the model predicts for the reference at the same noise level. The velocity counts as a constant of the
latents, so that no gradient passes through the transformer. (The paper's regularisation of the velocity is left out.)
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from pydantic import Field

from effivmt.benchmark.baselines import guided
from effivmt.config import IngestParams, Positive, RenderParams, Section
from effivmt.method.backbone import Backbone
from effivmt.method.losses import add_noise

Weight = Annotated[float, Field(ge=0)]


class FlowMotionParams(Section):
    """FlowMotion's knobs; the defaults are the paper's, in shares of its 50 steps."""

    guided_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The share of the render steps that are guided, from the first on (10 of 50)."""
    adam_steps: Positive = 3
    """Steps of Adam on the latents before each guided step; each predicts the velocity afresh."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.003
    latent_weight: Weight = 20.0
    """Of the difference of the predicted clean latents."""
    difference_weight: Weight = 5.0
    """Of the difference of their changes between frames."""


def generate(
    backbone: Backbone,
    reference: torch.Tensor,
    prompt: torch.Tensor,
    negative: torch.Tensor,
    render: RenderParams,
    size: IngestParams,
    seed: int,
    params: FlowMotionParams,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) for a prompt, with the motion of normalised reference latents (1, C, F, h, w).

    prompt and negative embeddings (tokens, channels). At each guided step the reference is noised to that step's level,
    with the noise that sampling began from, and predicted under the negative prompt, which is the empty one by default;
    the video is predicted under its prompt. Errors as of `guided.generate` and `guided.optimise`.
    """
    transformer = backbone.transformer
    clean = reference.to(backbone.device)

    def guide(latents: torch.Tensor, moment: guided.Moment) -> torch.Tensor:
        noised = add_noise(clean, moment.noise, torch.tensor([moment.sigma], device=backbone.device))
        target = clean_prediction(transformer, noised, moment, negative)

        def loss(latents: torch.Tensor) -> torch.Tensor:
            return guidance_loss(clean_prediction(transformer, latents, moment, prompt), target, params)

        return guided.optimise(latents, loss, params.adam_steps, params.learning_rate)

    share = params.guided_share
    return guided.generate(backbone, reference, prompt, negative, render, size, seed, guide, share, progress)


def clean_prediction(
    transformer: WanTransformer3DModel, latents: torch.Tensor, moment: guided.Moment, text: torch.Tensor
) -> torch.Tensor:
    """x0 = z - sigma v(z), float32 (1, C, F, h, w), of latents z alike; its derivative by z is one: v is a constant."""
    to = {"device": transformer.device, "dtype": transformer.dtype}
    with torch.no_grad():
        velocity = transformer(latents.to(**to), moment.timestep, text[None].to(**to), return_dict=False)[0]
    return latents - moment.sigma * velocity.float()


def guidance_loss(found: torch.Tensor, target: torch.Tensor, params: FlowMotionParams) -> torch.Tensor:
    """Weighted sum of the mean squared error of predictions (1, C, F, h, w) and of that of their frame differences.

    The differences are those of all pairs of frames; F >= 2.
    """
    error = found - target
    first, second = torch.triu_indices(error.shape[2], error.shape[2], 1)
    differences = error[:, :, first] - error[:, :, second]
    return params.latent_weight * error.square().mean() + params.difference_weight * differences.square().mean()
