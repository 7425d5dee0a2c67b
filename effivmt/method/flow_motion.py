"""FlowMotion (arXiv 2603.06289, CVPR 2026): guides the latents by the model's prediction of the clean video.

Early in sampling the prediction x0 = z - sigma v(z) already holds the motion. The loss pulls it and its differences
between frames towards those that the model predicts for the reference at the same noise level. The velocity is treated
as a constant, so no gradient passes through the transformer. The paper's velocity regularisation is left out.
"""

from typing import Annotated

import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from pydantic import Field

from effivmt.config import Positive, Section
from effivmt.method import guided
from effivmt.method.guided import GuidedRequest, SamplingStep
from effivmt.method.losses import add_noise
from effivmt.method.prediction import predict_velocity

Weight = Annotated[float, Field(ge=0)]


class FlowMotionParams(Section):
    """Params of FlowMotion; the defaults are the paper's, with counts of its 50 render steps given as shares."""

    guided_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the render steps that are guided, counted from the first (paper: 10 of 50)."""
    adam_steps: Positive = 3
    """Adam steps on the latents before each guided step; each predicts the velocity again."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.003
    latent_weight: Weight = 20.0
    """Weight of the error of the predicted clean latents."""
    difference_weight: Weight = 5.0
    """Weight of the error of their differences between frames."""


def generate(request: GuidedRequest, params: FlowMotionParams) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) that show the prompt with the motion of the reference.

    At each guided step the reference is noised to that step's level with the noise that sampling started from. It is
    predicted under the negative prompt, which is empty by default, and the video under its prompt. Raises as
    `guided.generate` and `guided.optimise` do.
    """
    transformer, device = request.backbone.transformer, request.backbone.device
    clean = request.reference.to(device)

    def guide(latents: torch.Tensor, step: SamplingStep) -> torch.Tensor:
        noised = add_noise(clean, step.noise, torch.tensor([step.sigma], device=device))
        target = clean_prediction(transformer, noised, step, request.negative)

        def loss(latents: torch.Tensor) -> torch.Tensor:
            return guidance_loss(clean_prediction(transformer, latents, step, request.prompt), target, params)

        return guided.optimise(latents, loss, params.adam_steps, params.learning_rate)

    return guided.generate(request, guide, params.guided_share)


def clean_prediction(
    transformer: WanTransformer3DModel, latents: torch.Tensor, step: SamplingStep, text: torch.Tensor
) -> torch.Tensor:
    """x0 = z - sigma v(z), float32 (1, C, F, h, w), of latents z of that shape; dx0/dz = 1, since v is a constant.

    text (tokens, channels).
    """
    device, dtype = transformer.device, transformer.dtype
    with torch.no_grad():
        velocity = predict_velocity(transformer, latents.to(device, dtype), step.timestep, text[None].to(device, dtype))
    return latents - step.sigma * velocity.float()


def guidance_loss(predicted: torch.Tensor, target: torch.Tensor, params: FlowMotionParams) -> torch.Tensor:
    """Weighted sum of the mean squared errors of predictions (1, C, F, h, w) and of their frame differences: a scalar.

    The differences are those of all pairs of frames; F >= 2.
    """
    error = predicted - target
    first, second = torch.triu_indices(error.shape[2], error.shape[2], 1)
    differences = error[:, :, first] - error[:, :, second]
    return params.latent_weight * error.square().mean() + params.difference_weight * differences.square().mean()
