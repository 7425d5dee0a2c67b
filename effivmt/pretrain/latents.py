"""Caches the latents and captions of many world clips, so that training the transformer never runs the autoencoder."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from effivmt.pretrain.autoencoder import encode_whole
from effivmt.world.scenes import draw_clip

SHARD = 64


def cache_latents(
    vae: AutoencoderKLWan,
    folder: Path,
    *,
    kinds: dict[str, float],
    shards: range,
    seed: int = 100,
    num_frames: int = 33,
    report: Callable[[int], None] | None = None,
) -> None:
    """Writes shard files of 64 clips each, float16 latents (64, C, F, h, w) before normalisation, and their captions.

    Shards that are there already are kept, so a killed run goes on where it stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for shard in shards:
        path = folder / f"{shard:05d}.safetensors"
        if not path.exists():
            latents, captions = [], []
            for start in range(0, SHARD, 8):
                clips = [
                    draw_clip(seed, shard * SHARD + start + i, kinds=kinds, num_frames=num_frames) for i in range(8)
                ]
                video = torch.from_numpy(np.stack([clip.frames for clip in clips])).permute(0, 4, 1, 2, 3)
                with torch.no_grad():
                    latents.append(encode_whole(vae, video.float() / 127.5 - 1).chunk(2, dim=1)[0].half())
                captions += [clip.caption for clip in clips]
            temporary = path.with_suffix(".partial")
            save_file({"latents": torch.cat(latents)}, temporary, metadata={"captions": json.dumps(captions)})
            temporary.replace(path)
        if report is not None:
            report(shard)


def load_latents(folder: Path) -> tuple[torch.Tensor, list[str]]:
    """All cached latents float16 (M, C, F, h, w) and their captions."""
    latents, captions = [], []
    for path in sorted(folder.glob("*.safetensors")):
        latents.append(load_file(path)["latents"])
        with safe_open(path, framework="pt") as file:
            captions += json.loads(file.metadata()["captions"])
    return torch.cat(latents), captions


def latent_statistics(latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation, float32 (C,), of latents (M, C, F, h, w): the VAE's latents_mean and latents_std."""
    flat = latents.float().transpose(0, 1).flatten(1)
    return flat.mean(1), flat.std(1)
