"""Flow matching and the motion loss, as pure functions of tensors (paper, sections 3.1 and 3.4)."""

import torch
from torch.nn import functional as F

from effivmt.method.experts import EVERY_LEVEL, NoiseRange


def draw_sigmas(count: int, shift: float, generator: torch.Generator, within: NoiseRange = EVERY_LEVEL) -> torch.Tensor:
    """Noise levels float32 (count,) in `within`: sigma = shift u / (1 + (shift - 1) u), u uniform (Wan's flow shift).

    One u lies in each of `count` equal stretches of its range, which is (0, 1) for every level, in random order, so
    that every batch sees all of them.
    """
    u = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    low, high = (sigma / (shift - (shift - 1) * sigma) for sigma in within)
    u = low + (high - low) * u
    return (shift * u / (1 + (shift - 1) * u)).clamp(*within)  # rounding may pass an end by the last bit


def add_noise(latents: torch.Tensor, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """x_sigma = (1 - sigma) x_0 + sigma eps; latents and noise (B, C, F, H, W), sigmas (B,)."""
    sigmas = sigmas.view(-1, *[1] * (latents.ndim - 1))
    return (1 - sigmas) * latents + sigmas * noise


def velocity(latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The flow-matching target v = eps - x_0."""
    return noise - latents


def denoising_errors(
    predicted: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error of each sample's velocity (B, C, F, H, W), float32 (B,).

    weights (B, 1, F, H, W), in [0, 1]: how much each position counts; None: all alike.
    """
    return _means((predicted.float() - target.float()).square(), weights)


def denoising_loss(predicted: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """L_denoise = mean squared error of the velocity, a scalar; `weights` as for `denoising_errors`."""
    return denoising_errors(predicted, target, weights).mean()


def motion_loss(predicted: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """L_motion = 1 - cos(dv_predicted, dv_target), a scalar in [0, 2]; zero for a single latent frame.

    dv_i = v_i - v_{i-1} between adjacent latent frames of (B, C, F, H, W); the cosine runs over the channels at each
    position. A step counts by the lower of the `weights` (as for `denoising_errors`) of its two ends.
    """
    if predicted.shape[2] < 2:
        return predicted.new_zeros(())
    predicted_steps, target_steps = (v[:, :, 1:].float() - v[:, :, :-1].float() for v in (predicted, target))
    both = None if weights is None else torch.minimum(weights[:, 0, 1:], weights[:, 0, :-1])
    return 1 - _means(F.cosine_similarity(predicted_steps, target_steps, dim=1), both).mean()


def _means(values: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Weighted mean of each sample of (B, ...), of which callers take the mean; 0 where all its weights are 0.

    The mean over everything at once would differ in its last bit with the number of threads.
    """
    if weights is None:
        return values.flatten(1).mean(1)
    weights = weights.expand_as(values)
    return (values * weights).flatten(1).sum(1) / weights.flatten(1).sum(1).clamp(min=1e-6)
