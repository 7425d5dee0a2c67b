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

from effivmt.pretrain.autoencoder import encode_whole
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
def _encode(vae: AutoencoderKLWan, clips: list[Clip]) -> torch.Tensor:
    video = torch.from_numpy(np.stack([clip.frames for clip in clips])).permute(0, 4, 1, 2, 3).to(vae.device)
    return encode_whole(vae, video.float() / 127.5 - 1).chunk(2, dim=1)[0].half().cpu()
