"""The one call that predicts a velocity, so that nothing else knows which kind of backbone it works on."""

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from effivmt.method.experts import ONLY, Expert


def predict_velocity(
    transformer: WanTransformer3DModel,
    noised: torch.Tensor,
    timesteps: torch.Tensor,
    text: torch.Tensor,
    *,
    expert: Expert = ONLY,
) -> torch.Tensor:
    """The velocity (B, C, F, h, w) that a transformer predicts for noised latents of that shape.

    timesteps (B,) in [0, 1000] are 1000 times the noise levels; text (B, tokens, channels). As the stock pipelines do,
    it gives a transformer with `expand_timesteps` the timestep of each token.
    """
    if expert.expand_timesteps:
        timesteps = timesteps[:, None].expand(-1, token_count(transformer, noised))
    return transformer(noised, timesteps, text, return_dict=False)[0]


def token_count(transformer: WanTransformer3DModel, latents: torch.Tensor) -> int:
    """S, the number of tokens of a sample of latents (B, C, F, h, w)."""
    _, p_h, p_w = transformer.config["patch_size"]
    return latents.shape[2] * (latents.shape[3] // p_h) * (latents.shape[4] // p_w)
