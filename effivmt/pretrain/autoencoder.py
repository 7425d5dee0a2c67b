"""Trains the embedded backbone's video autoencoder, an `AutoencoderKLWan`, on crops of the procedural world.

Training runs a clip through the network whole. diffusers runs it in chunks of four frames with a cache; `encode_whole`
and `decode_whole` give the same tensors (to float rounding) in half the time.
"""

from collections.abc import Callable, Iterable
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    AutoencoderKLWan,
    WanResample,
    WanUpBlock,
    patchify,
    unpatchify,
)
from torch import nn
from torch.nn import functional as F

from effivmt.method.checkpoint import load_checkpoint, save_checkpoint
from effivmt.method.seeding import generator
from effivmt.pretrain.drawing import drawing
from effivmt.pretrain.log import Log
from effivmt.pretrain.precision import fast_products
from effivmt.pretrain.replay import replayed
from effivmt.world.scenes import draw_clip

CONFIG: dict[str, Any] = {  # arguments of AutoencoderKLWan, each of its own type
    "base_dim": 16,
    "z_dim": 32,
    "dim_mult": [1, 2, 4],
    "temperal_downsample": [True, True],
    "num_res_blocks": 1,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 8,
    "scale_factor_temporal": 4,
    "latents_mean": [0.0] * 32,
    "latents_std": [1.0] * 32,
}
CROP = 32
"""The width in pixels of what a step sees of a clip."""
KINDS = {"object": 0.5, "camera": 0.2, "pair": 0.15, "figure": 0.15}
KINDS_FURTHER = {"object": 0.3, "camera": 0.15, "pair": 0.35, "figure": 0.2}
"""Of clips for training on: more of those that have the most edges, which are the hardest to give back."""


def encode_whole(vae: AutoencoderKLWan, video: torch.Tensor) -> torch.Tensor:
    """Latent means (B, C, F, H/8, W/8) of video (B, 3, 4(F-1)+1, H, W) in [-1, 1], before normalisation."""
    encoder = vae.encoder
    x = encoder.conv_in(patchify(video, vae.config["patch_size"]))
    for layer in encoder.down_blocks:
        x = _down(layer, x) if isinstance(layer, WanResample) else layer(x)
    x = encoder.conv_out(encoder.nonlinearity(encoder.norm_out(encoder.mid_block(x))))
    return vae.quant_conv(x)


def decode_whole(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Video (B, 3, 4(F-1)+1, 8h, 8w), not clamped, of latents (B, C, F, h, w) before normalisation."""
    decoder = vae.decoder
    x = decoder.mid_block(decoder.conv_in(vae.post_quant_conv(latents)))
    for block in cast(Iterable[WanUpBlock], decoder.up_blocks):  # torch says Module
        for resnet in block.resnets:
            x = resnet(x)
        if block.upsamplers is not None:
            x = _up(cast(WanResample, block.upsamplers[0]), x)
    x = decoder.conv_out(decoder.nonlinearity(decoder.norm_out(x)))
    return unpatchify(x, vae.config["patch_size"])


def train_autoencoder(
    vae: AutoencoderKLWan,
    folder: Path,
    *,
    steps: int,
    lengths: tuple[int, ...] = (5, 9),
    batch_frames: int = 72,
    pool: int = 2000,
    learning_rate: float = 1e-3,
    near: AutoencoderKLWan | None = None,
    seed: int = 0,
    save_every: int = 250,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, list[float]]:
    """Trains `vae` in place, where it is, for `steps` steps, resuming from `folder`/autoencoder.safetensors.

    A step sees about `batch_frames` frames of `pool` clips, in square crops of `CROP` pixels and T frames, T drawn from
    `lengths`: short ones to learn looks fast, then up to whole clips, since the causal convolutions reach back further
    than a short crop. Small steps learn more from as many frames than large ones. Products are in bfloat16 on a GPU,
    which replays forward and backward as a graph. Loss: L1 + 2 MSE, five-fold on the objects, + 2e-4 KL; AdamW with
    cosine decay. Returns the losses' log.

    `near`, the autoencoder that `vae` starts from, holds the latents near its own, so that what a transformer knows of
    them stays true: the loss has the mean square of their distance, in units of their normalisation. It is then
    10 MSE + log MSE / 20 instead of L1 + 2 MSE, which is what a mean of PSNRs counts, on clips of `KINDS_FURTHER`.
    """
    parameters: dict[str, torch.Tensor] = dict(vae.named_parameters())
    trained = list(vae.parameters())
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=1e-4, betas=(0.9, 0.99), fused=True)
    path = folder / "autoencoder.safetensors"
    start, done = load_checkpoint(path, parameters, optimizer)
    log = Log(done, vae.device)
    vae.train()
    if start >= steps:
        return log.read()
    clips = _Clips(seed + 1, pool, vae.device, kinds=KINDS if near is None else KINDS_FURTHER)
    losses = _Losses(vae, near)
    ready: dict[int, Callable[..., torch.Tensor]] = {}  # by the number of frames
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 200) * (0.01 + 0.99 * _cosine(step / steps))
        num_frames = lengths[int(torch.randint(len(lengths), (), generator=generator(seed, "length", step)))]
        count = max(1, batch_frames // num_frames)
        video, weight = clips.crops(seed, step, count, num_frames, size=CROP)
        frames = (num_frames - 1) // 4 + 1
        noise = torch.randn(
            (count, vae.config["z_dim"], frames, CROP // 8, CROP // 8),
            generator=generator(seed, "autoencoder", step, device=vae.device),
            device=vae.device,
        )
        if num_frames not in ready:
            ready[num_frames] = replayed(losses, (video, weight, noise))
        loss, kl, psnr = ready[num_frames](video, weight, noise)
        optimizer.zero_grad(set_to_none=True)
        (loss + 2e-4 * kl).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        log.add(loss=loss.detach().clone(), psnr=psnr.detach().clone())
        if (step + 1) % save_every == 0 or step + 1 == steps:
            save_checkpoint(path, step + 1, parameters, optimizer, logs=log.read())
        if report is not None and log.due(step + 1):
            report(step + 1, log.newest())
    return log.read()


class _Losses(nn.Module):
    """What an autoencoder loses of a video, and how far its latents are from a normal distribution."""

    def __init__(self, vae: AutoencoderKLWan, near: AutoencoderKLWan | None) -> None:
        super().__init__()
        self.vae, self.near = vae, near
        self.unit = nn.Buffer(torch.tensor(vae.config["latents_std"], device=vae.device).view(-1, 1, 1, 1))

    def forward(self, video: torch.Tensor, weight: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Reconstruction loss, KL divergence and PSNR in dB, float32 (3,), of crops as `_Clips.crops` gives them, with
        `noise` (B, C, F, h, w) in the latents."""
        with fast_products(self.vae, video.device):
            mean, logvar = encode_whole(self.vae, video).float().chunk(2, dim=1)
            logvar = logvar.clamp(-30, 20)
            restored = decode_whole(self.vae, mean + (0.5 * logvar).exp() * noise).float()
        error = restored - video
        if self.near is None:
            loss = (weight * (error.abs() + 2 * error**2)).mean() / weight.mean()
        else:
            with torch.no_grad(), fast_products(self.near, video.device):
                held = encode_whole(self.near, video).float().chunk(2, dim=1)[0]
            squares = error.square().mean((1, 2, 3, 4))
            loss = 10 * squares.mean() + 0.05 * (squares + 2e-4).log().mean()
            loss = loss + ((mean - held) / self.unit).square().mean()
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        psnr = -10 * torch.log10(F.mse_loss(restored.detach().clamp(-1, 1), video) / 4)
        return torch.stack([loss, kl, psnr])


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


class _Clips:
    """`pool` clips of the data set `seed`, uint8 (M, T, H, W, 3) on a device, and their frames' median colours."""

    def __init__(self, seed: int, pool: int, device: torch.device, *, kinds: dict[str, float]) -> None:
        with drawing() as draw:
            clips = draw(partial(draw_clip, seed, kinds=kinds), range(pool))
        self.frames = torch.from_numpy(np.stack([clip.frames for clip in clips])).to(device)
        every = self.frames.flatten(0, 1).flatten(1, 2)
        medians = torch.cat([part.float().median(1).values for part in every.split(1024)])
        self.ground = medians.view(*self.frames.shape[:2], 1, 1, 3)

    def crops(
        self, seed: int, step: int, count: int, num_frames: int, *, size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Random crops float32 (count, 3, T, size, size) in [-1, 1], four in five around something, and their loss
        weights (count, 1, T, size, size) in [1, 5]; `size` in pixels, at most the frame's."""
        device, (pool, whole, height, width, _) = self.frames.device, self.frames.shape
        random, to_device = generator(seed, "crops", step), methodcaller("to", device, non_blocking=True)
        which = to_device(torch.randint(pool, (count, 1), generator=random))
        first = to_device(torch.randint(whole - num_frames + 1, (count, 1), generator=random))
        anywhere = to_device(torch.rand(count, 1, generator=random) < 0.2)
        shift = to_device(torch.randint(-12, 13, (2, count, 1), generator=random)) - size // 2
        times = first + torch.arange(num_frames, device=device)
        frames = self.frames[which, times].float() / 127.5 - 1
        interest = (frames - (self.ground[which, times] / 127.5 - 1)).abs().sum(-1).clamp(max=1)
        middle = interest[:, num_frames // 2].flatten(1) > 0.5
        places = torch.multinomial(
            (middle | anywhere | ~middle.any(1, keepdim=True)).float(),
            1,
            generator=generator(seed, "places", step, device=device),
        )
        along = torch.arange(size, device=device)
        rows = (places // width + shift[0]).clamp(0, height - size) + along
        columns = (places % width + shift[1]).clamp(0, width - size) + along
        at = (
            torch.arange(count, device=device)[:, None, None, None],
            torch.arange(num_frames, device=device)[:, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        )
        return frames[at].permute(0, 4, 1, 2, 3).contiguous(), (1 + 4 * interest[at])[:, None]
