"""Trains the embedded backbone's video autoencoder, an `AutoencoderKLWan`, on crops of the procedural world.

Training runs a clip through the network whole. diffusers runs it in chunks of four frames with a cache; `encode_whole`
and `decode_whole` give the same tensors (to float rounding) in half the time.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, patchify, unpatchify
from torch.nn import functional as F

from effivmt.checkpoint import load_checkpoint, save_checkpoint
from effivmt.pretrain.drawing import drawing
from effivmt.seeding import generator
from effivmt.world.scenes import draw_clip

CONFIG = {
    "base_dim": 16,
    "z_dim": 24,
    "dim_mult": [1, 2, 4],
    "temperal_downsample": [True, True],
    "num_res_blocks": 1,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 8,
    "scale_factor_temporal": 4,
    "latents_mean": [0.0] * 24,
    "latents_std": [1.0] * 24,
}
KINDS = {"object": 0.5, "camera": 0.2, "pair": 0.15, "figure": 0.15}
CROP = 32


def encode_whole(vae: AutoencoderKLWan, video: torch.Tensor) -> torch.Tensor:
    """Latent means (B, C, F, H/8, W/8) of video (B, 3, 4(F-1)+1, H, W) in [-1, 1], before normalisation."""
    encoder = vae.encoder
    x = encoder.conv_in(patchify(video, vae.config.patch_size))
    for layer in encoder.down_blocks:
        x = _down(layer, x) if isinstance(layer, WanResample) else layer(x)
    x = encoder.conv_out(encoder.nonlinearity(encoder.norm_out(encoder.mid_block(x))))
    return vae.quant_conv(x)


def decode_whole(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Video (B, 3, 4(F-1)+1, 8h, 8w), not clamped, of latents (B, C, F, h, w) before normalisation."""
    decoder = vae.decoder
    x = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latents)))
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            x = resnet(x)
        if block.upsamplers is not None:
            x = _up(block.upsamplers[0], x)
    x = decoder.conv_out(decoder.nonlinearity(decoder.norm_out(x)))
    return unpatchify(x, vae.config.patch_size)


def train_autoencoder(
    vae: AutoencoderKLWan,
    folder: Path,
    *,
    steps: int,
    lengths: tuple[int, ...] = (5, 9),
    batch_frames: int = 72,
    pool: int = 2000,
    learning_rate: float = 1e-3,
    seed: int = 0,
    save_every: int = 250,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, list[float]]:
    """Trains `vae` in place, where it is, for `steps` steps, resuming from `folder`/autoencoder.safetensors.

    A step sees about `batch_frames` frames of `pool` clips, in crops of T frames, T drawn from `lengths`: short ones to
    learn looks fast, then up to whole clips, since the causal convolutions reach back further than a short crop.
    Loss: L1 + 2 MSE, five-fold on the objects, + 2e-4 KL; AdamW with cosine decay. Returns the log of the losses.
    """
    parameters = dict(vae.named_parameters())
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=learning_rate, weight_decay=1e-4, betas=(0.9, 0.99), fused=True
    )
    path = folder / "autoencoder.safetensors"
    start, logs = load_checkpoint(path, parameters, optimizer)
    vae.train()
    clips = _draw(seed + 1, pool) if start < steps else []
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 200) * (0.01 + 0.99 * _cosine(step / steps))
        video, weight = (x.to(vae.device) for x in _crops(clips, seed, step, lengths, batch_frames))
        mean, logvar = encode_whole(vae, video).chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator(seed, "autoencoder", step)).to(vae.device)
        logvar = logvar.clamp(-30, 20)
        restored = decode_whole(vae, mean + (0.5 * logvar).exp() * noise)
        error = restored - video
        loss = (weight * (error.abs() + 2 * error**2)).mean() / weight.mean()
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        optimizer.zero_grad(set_to_none=True)
        (loss + 2e-4 * kl).backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        logs.setdefault("loss", []).append(round(loss.item(), 6))
        logs.setdefault("psnr", []).append(
            round(-10 * float(torch.log10(F.mse_loss(restored.detach().clamp(-1, 1), video) / 4)), 3)
        )
        if (step + 1) % save_every == 0 or step + 1 == steps:
            save_checkpoint(path, step + 1, parameters, optimizer, logs)
        if report is not None:
            report(step + 1, {name: values[-1] for name, values in logs.items()})
    return logs


def _down(layer: WanResample, x: torch.Tensor) -> torch.Tensor:
    x = _each_frame(layer.resample, x)
    if layer.mode == "downsample3d" and x.shape[2] > 1:
        return torch.cat([x[:, :, :1], layer.time_conv(x)], dim=2)
    return x


def _up(layer: WanResample, x: torch.Tensor) -> torch.Tensor:
    if layer.mode == "upsample3d" and x.shape[2] > 1:
        b, c, t, h, w = x[:, :, 1:].shape
        doubled = layer.time_conv(x[:, :, 1:]).reshape(b, 2, c, t, h, w)
        doubled = torch.stack((doubled[:, 0], doubled[:, 1]), 3).reshape(b, c, 2 * t, h, w)
        x = torch.cat([x[:, :, :1], doubled], dim=2)
    return _each_frame(layer.resample, x)


def _each_frame(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    b, t = x.shape[0], x.shape[2]
    y = layer(x.transpose(1, 2).flatten(0, 1))
    return y.unflatten(0, (b, t)).transpose(1, 2)


def _cosine(progress: float) -> float:
    return 0.5 + 0.5 * float(np.cos(np.pi * progress))


def _draw(seed: int, pool: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Clips uint8 (T, H, W, 3) of the data set `seed`, each with the median colours (T, 1, 1, 3) of its frames."""
    with drawing() as draw:
        clips = draw(partial(draw_clip, seed, kinds=KINDS), range(pool))
    return [(clip.frames, np.median(clip.frames, axis=(1, 2), keepdims=True)) for clip in clips]


def _crops(
    clips: list[tuple[np.ndarray, np.ndarray]], seed: int, step: int, lengths: tuple[int, ...], batch_frames: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random crops (B, 3, T, 32, 32) in [-1, 1], T one of `lengths`, most around something, and their loss weights."""
    rng = np.random.default_rng([seed, step, 7])
    num_frames = int(rng.choice(lengths))
    videos, weights = [], []
    for _ in range(max(1, batch_frames // num_frames)):
        clip, ground = clips[int(rng.integers(len(clips)))]
        first = int(rng.integers(0, len(clip) - num_frames + 1))
        frames = clip[first : first + num_frames].astype(np.float32) / 127.5 - 1
        ground = ground[first : first + num_frames].astype(np.float32) / 127.5 - 1
        interest = np.minimum(np.abs(frames - ground).sum(-1), 1.0)
        x, y = _corner(rng, interest)
        videos.append(frames[:, y : y + CROP, x : x + CROP])
        weights.append(1 + 4 * interest[:, y : y + CROP, x : x + CROP])
    video = torch.from_numpy(np.stack(videos)).permute(0, 4, 1, 2, 3).contiguous()
    return video, torch.from_numpy(np.stack(weights))[:, None]


def _corner(rng: np.random.Generator, interest: np.ndarray) -> tuple[int, int]:
    size = interest.shape[-1]
    if rng.random() < 0.2 or interest.max() < 0.5:
        return int(rng.integers(0, size - CROP + 1)), int(rng.integers(0, size - CROP + 1))
    ys, xs = (
        np.nonzero(interest[len(interest) // 2] > 0.5) if interest[len(interest) // 2].max() > 0.5 else ([32], [32])
    )
    pick = int(rng.integers(0, len(xs)))
    shift = rng.integers(-12, 13, 2) - CROP // 2
    return int(np.clip(xs[pick] + shift[0], 0, size - CROP)), int(np.clip(ys[pick] + shift[1], 0, size - CROP))
