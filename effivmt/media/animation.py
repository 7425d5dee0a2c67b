"""A moving picture of several videos side by side, as GIF or WebP: what a web page shows without a player."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from effivmt.errors import ParamsError, VideoError
from effivmt.media.figures import INK, PAPER, label_font, wrap_label

TILE = 128
"""Width of a video, in pixels; smaller ones grow by a whole factor as far as they fit."""
GAP = 10
LINE = 15
SUFFIXES = (".gif", ".webp")


def side_by_side(rows: Sequence[Sequence[tuple[str, np.ndarray]]], *, every: int = 1) -> np.ndarray:
    """Lays (label, video) pairs out as a grid, each label above its video, and plays them all at once.

    A video is uint8 (T, H, W, 3); of each every `every`-th frame is shown. One that ends earlier keeps its last frame.
    Returns uint8 (T', H', W', 3). Raises VideoError where there is no video.
    """
    if not any(rows):
        raise VideoError("a moving picture was given no video, expected at least one")
    font = label_font(12)
    placed, top, width = [], GAP, 0
    for row in rows:
        tiles = [_enlarged(video[::every]) for _, video in row]
        labels = [wrap_label(label, font, TILE) for label, _ in row]
        below = top + max(len(lines) for lines in labels) * LINE
        for column, (lines, tile) in enumerate(zip(labels, tiles, strict=True)):
            placed.append((lines, tile, GAP + column * (TILE + GAP), top, below))
        top = below + max(tile.shape[1] for tile in tiles) + GAP
        width = max(width, GAP + len(row) * (TILE + GAP))
    page = Image.new("RGB", (width, top), PAPER)
    draw = ImageDraw.Draw(page)
    for lines, _, left, label_top, _ in placed:
        for number, text in enumerate(lines):
            draw.text((left, label_top + number * LINE), text, font=font, fill=INK)
    longest = max(len(tile) for _, tile, *_ in placed)
    frames = np.repeat(np.asarray(page)[None], longest, axis=0)
    for _, tile, left, _, below in placed:
        shown = tile[np.minimum(np.arange(longest), len(tile) - 1)]
        frames[:, below : below + tile.shape[1], left : left + tile.shape[2]] = shown
    return frames


def write_animation(path: Path, frames: np.ndarray, fps: float) -> None:
    """Writes frames uint8 (T, H, W, 3) as an endless .gif or .webp; ParamsError for another suffix."""
    if path.suffix.lower() not in SUFFIXES:
        raise ParamsError(f"{path} has no suffix of a moving picture: expected {' or '.join(SUFFIXES)}")
    images = [Image.fromarray(frame) for frame in frames]
    if path.suffix.lower() == ".gif":
        palette = Image.fromarray(np.concatenate(frames[:: max(1, len(frames) // 8)])).quantize(128)
        images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    images[0].save(path, save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)


def _enlarged(video: np.ndarray) -> np.ndarray:
    """The video at the width of a tile: enlarged by a whole factor, or shrunk."""
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8 or 0 in video.shape:
        raise VideoError(f"a video of a moving picture is {video.dtype} {video.shape}, expected uint8 (T, H, W, 3)")
    height, width = video.shape[1:3]
    if width <= TILE:
        factor = TILE // width
        return video.repeat(factor, axis=1).repeat(factor, axis=2)
    size = (TILE, max(1, round(height * TILE / width)))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)) for frame in video])
