"""Caches the latents and captions of world clips and stills, so that training never runs the autoencoder."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from effivmt.pretrain.autoencoder import decode_whole, encode_whole
from effivmt.pretrain.drawing import Draw, drawing
from effivmt.world.scenes import Clip

SHARD = 64


@dataclass(frozen=True, eq=False)
class Captioned:
    """latents float16 or float32 (M, C, F, h, w) and their M captions."""

    latents: torch.Tensor
    captions: list[str]


def cache_latents(
    vae: AutoencoderKLWan,
    folder: Path,
    draw: Draw,
    *,
    shards: range,
    report: Callable[[int], None] | None = None,
) -> None:
    """Writes shard files of 64 clips each, float16 latents (64, C, F, h, w) before normalisation, and their captions.

    `draw` gives clip or still number i; `vae` encodes them where it is. Shards that are there already are kept, so a
    killed run goes on where it stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    at_once = 8 if vae.device.type == "cpu" else SHARD
    with drawing() as draw_all:
        for shard in shards:
            path = folder / f"{shard:05d}.safetensors"
            if not path.exists():
                clips = draw_all(draw, range(shard * SHARD, (shard + 1) * SHARD))
                latents = [_encode(vae, clips[start : start + at_once]) for start in range(0, SHARD, at_once)]
                metadata = {"captions": json.dumps([clip.caption for clip in clips])}
                temporary = path.with_suffix(".partial")
                save_file({"latents": torch.cat(latents).contiguous()}, temporary, metadata=metadata)
                temporary.replace(path)
            if report is not None:
                report(shard)


def load_latents(folder: Path, shards: range) -> Captioned:
    """The cached latents of these shards, float16, and their captions. FileNotFoundError for one that is not there."""
    latents, captions = [], []
    for path in (folder / f"{shard:05d}.safetensors" for shard in shards):
        latents.append(load_file(path)["latents"])
        with safe_open(path, framework="pt") as file:
            captions += json.loads(file.metadata()["captions"])
    return Captioned(torch.cat(latents), captions)


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


@torch.no_grad()
def _encode(vae: AutoencoderKLWan, clips: list[Clip]) -> torch.Tensor:
    video = torch.from_numpy(np.stack([clip.frames for clip in clips])).permute(0, 4, 1, 2, 3).to(vae.device)
    return encode_whole(vae, video.float() / 127.5 - 1).chunk(2, dim=1)[0].half().cpu()
