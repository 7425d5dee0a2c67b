"""The one call that predicts a velocity, so that nothing else knows which kind of backbone it works on."""

from dataclasses import dataclass

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from effivmt.method.experts import ONLY, Expert


@dataclass(frozen=True, eq=False)  # tensors have no truth value to compare by
class FirstFrame:
    """The first frame of a video as a backbone is given it.

    clean: whether it takes the place of the first latent frame, without noise, as in Wan 2.2 TI2V; else it stands
    beside the noise, as in Wan I2V. latents: normalised, (B, C, 1, h, w) where it is clean, else (B, 4 + C, F, h, w),
    4 channels that are 1 on the first latent frame alone and the latents of the frame with gray ones after it.
    embedding (1, tokens, channels): that of the image encoder; None where the backbone has none, or holds it.
    """

    latents: torch.Tensor
    clean: bool
    embedding: torch.Tensor | None = None

    @property
    def predicted(self) -> slice:
        """The latent frames whose velocity a backbone predicts."""
        return slice(1 if self.clean else 0, None)


def predict_velocity(
    transformer: WanTransformer3DModel,
    noised: torch.Tensor,
    timesteps: torch.Tensor,
    text: torch.Tensor,
    *,
    expert: Expert = ONLY,
    first: FirstFrame | None = None,
) -> torch.Tensor:
    """The velocity (B, C, F, h, w) that a transformer predicts for noised latents of that shape.

    timesteps (B,) in [0, 1000] are 1000 times the noise levels; text (B, tokens, channels); `first` is the first frame
    where it is given, of which `first.predicted` says what of the velocity counts. As the stock pipelines do, it gives
    a transformer with `expand_timesteps`, or with a clean first frame, the timestep of each token.
    """
    count, clean = token_count(transformer, noised), first is not None and first.clean
    if expert.expand_timesteps or clean:
        timesteps = timesteps[:, None].expand(-1, count)
    if first is None:
        return transformer(noised, timesteps, text, return_dict=False)[0]
    given = first.latents.to(noised).expand(len(noised), *first.latents.shape[1:])
    if clean:
        noised = torch.cat([given, noised[:, :, 1:]], dim=2)
        timesteps = timesteps * (torch.arange(count, device=timesteps.device) >= count // noised.shape[2])
    else:
        noised = torch.cat([noised, given], dim=1)
    image = first.embedding
    if image is not None:
        image = image.to(noised).expand(len(noised), *image.shape[1:])
    return transformer(noised, timesteps, text, image, return_dict=False)[0]


def token_count(transformer: WanTransformer3DModel, latents: torch.Tensor) -> int:
    """S, the number of tokens of a sample of latents (B, C, F, h, w)."""
    _, p_h, p_w = transformer.config["patch_size"]
    return latents.shape[2] * (latents.shape[3] // p_h) * (latents.shape[4] // p_w)
