"""The latents of world clips and stills, and how their channels are normalised."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from effivmt.pretrain.autoencoder import decode_whole, encode_whole
from effivmt.world.scenes import WorldClip

FRAMES_AT_ONCE = 96
"""Pixel frames that a processor encodes at once; more would not be faster."""


@dataclass(frozen=True, eq=False)
class Captioned:
    """latents float16 or float32 (M, C, F, h, w) and their M captions."""

    latents: torch.Tensor
    captions: list[str]


@torch.no_grad()
def encode_clips(vae: AutoencoderKLWan, clips: list[WorldClip]) -> torch.Tensor:
    """Latents float16 (M, C, F, h, w), before normalisation, of clips of one length; `vae` encodes them where it is."""
    on_processor = vae.device.type == "cpu"
    at_once = max(1, FRAMES_AT_ONCE // len(clips[0].frames)) if on_processor else len(clips)
    latents = []
    for start in range(0, len(clips), at_once):
        frames = torch.from_numpy(np.stack([clip.frames for clip in clips[start : start + at_once]]))
        video = frames.permute(0, 4, 1, 2, 3).to(vae.device).float() / 127.5 - 1
        latents.append(encode_whole(vae, video).chunk(2, dim=1)[0].half().cpu())
    return torch.cat(latents)


def latent_statistics(latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation, float32 (C,), of latents (M, C, F, h, w): the VAE's latents_mean and latents_std."""
    flat = latents.float().transpose(0, 1).flatten(1)
    return flat.mean(1), flat.std(1)


@torch.no_grad()
def channel_scales(
    vae: AutoencoderKLWan, latents: torch.Tensor, deviations: torch.Tensor, *, clips: int = 24, seed: int = 0
) -> torch.Tensor:
    """The standard deviations, float32 (C,), that normalised channels should have: mean square 1 before they are
    clamped to [0.6, 1.8]. latents (M, C, F, h, w) and their `deviations` (C,) are those before normalisation.

    They are the fourth root of what a channel shows: the squared change of all pixels when it moves by its standard
    deviation at one place of `clips` clips. What is coarse then stands out of more noise than what is fine, so that
    sampling decides it first, as it does where latents are not whitened at all; the root keeps fine channels learnable.
    """
    random, channels = torch.Generator().manual_seed(seed), latents.shape[1]
    shown = torch.zeros(channels)
    for index in torch.randperm(len(latents), generator=random)[:clips].tolist():
        few = latents[index : index + 1, :, :3].float()
        place = _busy_place(few, random)
        moved = few.repeat(channels, 1, 1, 1, 1)
        moved[:, :, -1, *place] += torch.diag(deviations)
        few, moved = few.to(vae.device), moved.to(vae.device)
        shown += (decode_whole(vae, moved) - decode_whole(vae, few)).square().flatten(1).sum(1).cpu()
    scales = (shown / shown.mean()) ** 0.25
    return (scales / scales.square().mean().sqrt()).clamp(0.6, 1.8)


def _busy_place(latents: torch.Tensor, random: torch.Generator) -> tuple[int, int]:
    """One of the six places (row, column) where the last frame of (1, C, F, h, w) is furthest from its median."""
    last = latents[0, :, -1]
    away = (last - last.flatten(1).median(1).values[:, None, None]).square().sum(0)
    busiest = away.flatten().topk(min(6, away.numel())).indices
    place = int(busiest[torch.randint(len(busiest), (), generator=random)])
    return divmod(place, away.shape[1])
