"""Adaptive rotary positions for sparsely sampled frames (paper, section 3.4).

Wan's time axis counts latent frames. When the temporal stage sees only some frames, their positions on that axis are
fractional, so cosines and sines are computed, not looked up.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformer3DModel
from torch import nn

RopeMode = Literal["none", "paper", "aligned"]


def sampled_indices(num_frames: int, num_sampled: int, phase: float) -> torch.Tensor:
    """Indices, int64 (num_sampled,), of evenly spaced frames: floor((i + phase) * num_frames / num_sampled).

    `phase` in [0, 1) shifts the grid: over num_frames / num_sampled or more equal steps of it every frame is seen.
    """
    grid = (torch.arange(num_sampled, dtype=torch.float64) + phase) * num_frames / num_sampled
    return (grid + 1e-9).floor().long()  # 1e-9: a whole number that rounding made slightly less stays whole


def anchored_indices(num_frames: int, num_sampled: int, batch: int, random: torch.Generator) -> torch.Tensor:
    """Indices, int64 (batch, num_sampled), in order: the first and the last frame, and others drawn from between them.

    RoPE shows a model differences of positions only; frames that are always there make the places of the others
    visible. Between the ends, the samples of a batch share frames only where there are too few for all of them.
    `num_sampled` is in [3, num_frames].
    """
    drawn, rest = [], torch.tensor([], dtype=torch.int64)
    for _ in range(batch):
        if len(rest) < num_sampled - 2:
            rest = torch.randperm(num_frames - 2, generator=random) + 1
        drawn.append(rest[: num_sampled - 2].sort().values)
        rest = rest[num_sampled - 2 :]
    first = torch.zeros(batch, 1, dtype=torch.int64)
    return torch.cat([first, torch.stack(drawn), first + num_frames - 1], dim=1)


def time_positions(mode: RopeMode, indices: torch.Tensor, num_frames: int, *, latent: bool) -> torch.Tensor:
    """Time-axis positions float64 (F,) of the latent frames that hold the sampled frames `indices`.

    `latent`: the indices count latent frames of a densely encoded clip of `num_frames` latent frames; otherwise they
    count pixel frames, encoded after sampling, of a clip of `num_frames` pixel frames.

    none: 0, 1, 2, ... as the stock model. paper: i * F / F_samp, to which f(F/2 + (F/F_samp)(i - F_samp/2)) reduces
    (F and F_samp in frames of the kind that was sampled). aligned: the true positions of the frames in the dense
    clip; a latent frame is at the position of its last pixel frame, as in the dense clip, where latent frame j ends
    with pixel frame 4j.
    """
    count = len(indices) if latent else (len(indices) - 1) // 4 + 1
    steps = torch.arange(count, dtype=torch.float64)
    if mode == "none":
        return steps
    if mode == "paper":
        return steps * (num_frames / len(indices))
    return indices.double() if latent else indices[::4].double() / 4


def rotary_embedding(
    rope: WanRotaryPosEmbed, positions: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, float32 (B, S, 1, D), for time positions (B, F) and a token grid of height x width.

    At integer positions it equals diffusers' `WanRotaryPosEmbed` bit for bit.
    """
    time = _axis(positions.double().reshape(-1), rope.t_dim)
    tables = (rope.get_buffer("freqs_cos"), rope.get_buffer("freqs_sin"))
    space = [table.split([rope.t_dim, rope.h_dim, rope.w_dim], dim=1) for table in tables]
    batch, frames = positions.shape
    grid = (batch, frames, height, width, -1)
    parts = []
    for along_time, (_, rows, columns) in zip(time, space, strict=True):
        along_time = along_time.to(rows.device).view(batch, frames, 1, 1, -1).expand(grid)
        along_rows = rows[:height].view(1, 1, height, 1, -1).expand(grid)
        along_columns = columns[:width].view(1, 1, 1, width, -1).expand(grid)
        parts.append(torch.cat([along_time, along_rows, along_columns], dim=-1).flatten(1, 3)[:, :, None])
    return parts[0], parts[1]


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns the pairs of x (B, S, N, D) by the angles of `rotary_embedding`, as Wan's attention does to q and k."""
    x1, x2 = x.unflatten(-1, (-1, 2)).unbind(-1)
    c, s = cos[..., 0::2], sin[..., 1::2]
    return torch.stack([x1 * c - x2 * s, x1 * s + x2 * c], dim=-1).flatten(-2).type_as(x)


@contextmanager
def time_positions_of(transformer: WanTransformer3DModel) -> Iterator["AdaptiveRope"]:
    """Gives `transformer` a settable time axis while the context lasts."""
    stock = transformer.rope
    adaptive = AdaptiveRope(transformer)
    transformer.set_submodule("rope", adaptive)
    try:
        yield adaptive
    finally:
        transformer.set_submodule("rope", stock)


class AdaptiveRope(nn.Module):
    """Replaces a transformer's `rope`: uses `positions` (B, F) as the time axis where they are set."""

    def __init__(self, transformer: WanTransformer3DModel) -> None:
        super().__init__()
        self.stock = transformer.rope
        self.patch_size = transformer.config["patch_size"]
        self.positions: torch.Tensor | None = None

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.positions is None:
            return self.stock(latents)
        _, p_h, p_w = self.patch_size
        return rotary_embedding(self.stock, self.positions, latents.shape[3] // p_h, latents.shape[4] // p_w)


def _axis(positions: torch.Tensor, dim: int, theta: float = 10000.0) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, float32 (len, dim), each frequency twice, of float64 positions (len,)."""
    frequencies = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim)
    angles = torch.outer(positions, frequencies)
    return angles.cos().repeat_interleave(2, dim=1).float(), angles.sin().repeat_interleave(2, dim=1).float()
