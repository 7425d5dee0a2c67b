"""Anti-aliased drawing of shapes, figures and grounds by signed distances, all frames of a clip at once."""

import numpy as np

from effivmt.world.looks import Ground, Look, rgb
from effivmt.world.motions import SIZE, Motion


def pixel_grid() -> np.ndarray:
    """float32 (H, W, 2): the (x, y) centre of each pixel of a frame."""
    axis = np.arange(SIZE, dtype=np.float32) + 0.5
    return np.stack(np.meshgrid(axis, axis, indexing="xy"), -1)


def draw_ground(ground: Ground, poses: np.ndarray) -> np.ndarray:
    """Draws the ground as the camera sees it: poses (T, 4) as in `motions.camera`; returns float32 (T, H, W, 3)."""
    base = rgb(ground.colour)
    if ground.pattern == "plain":
        return np.broadcast_to(base, (len(poses), SIZE, SIZE, 3)).copy()
    shift, zoom, angle = poses[:, :2], np.exp(-poses[:, 2]), poses[:, 3]
    local = (pixel_grid() - SIZE / 2)[None] * zoom[:, None, None, None]
    local = _rotate(local, angle) + shift[:, None, None] + SIZE / 2 + np.asarray(ground.offset, np.float32)
    cover = _pattern_cover(ground.pattern, local / ground.cell, ground.cell / zoom[:, None, None])
    other = np.clip(base * ground.shade + (25 if ground.shade > 1 else 0), 0, 255)
    return base + cover[..., None] * (other - base)


def draw_object(canvas: np.ndarray, look: Look, motion: Motion) -> np.ndarray:
    """Paints an object onto canvas float32 (T, H, W, 3), in place; returns its coverage float32 (T, H, W) in [0, 1]."""
    local = pixel_grid()[None] - motion.centre[:, None, None]
    local = _rotate(local, motion.angle)
    size = (look.radius * motion.scale)[:, None, None]
    unit = local / size[..., None]
    edge = _DISTANCES[look.shape](unit[..., 0], unit[..., 1]) * size
    cover = np.clip(0.5 - edge, 0.0, 1.0)
    colour = rgb(look.colour) + _object_pattern(look, unit, edge, size)[..., None] * (
        rgb(look.second) - rgb(look.colour)
    )
    canvas += cover[..., None] * (colour - canvas)
    return cover


def draw_capsule(
    canvas: np.ndarray, start: np.ndarray, stop: np.ndarray, thickness: float, *, colour: np.ndarray
) -> None:
    """Paints a line with round ends, start and stop (T, 2) in pixels, onto canvas (T, H, W, 3), in place."""
    ends = np.concatenate([start, stop])
    low, high = (np.clip(at, 0, SIZE).astype(int) for at in (ends.min(0) - thickness - 1, ends.max(0) + thickness + 2))
    touched = np.s_[low[1] : high[1], low[0] : high[0]]
    point = pixel_grid()[touched] - start[:, None, None]
    way = (stop - start)[:, None, None]
    along = np.clip((point * way).sum(-1) / np.maximum((way**2).sum(-1), 1e-6), 0.0, 1.0)
    edge = np.linalg.norm(point - along[..., None] * way, axis=-1) - thickness
    view = canvas[:, *touched]
    view += np.clip(0.5 - edge, 0.0, 1.0)[..., None] * (colour - view)


def _rotate(local: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Turns coordinates (T, H, W, 2) by -angle (T,), that is, into the frame of a body turned by angle."""
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    x, y = local[..., 0], local[..., 1]
    return np.stack([x * cos + y * sin, y * cos - x * sin], -1)


def _object_pattern(look: Look, unit: np.ndarray, edge: np.ndarray, size: np.ndarray) -> np.ndarray:
    """How much of the second colour shows at each pixel, float32 (T, H, W) in [0, 1]."""
    if look.pattern == "plain":
        return np.zeros_like(edge)
    if look.pattern == "outlined":
        return np.clip(edge + 2.5 + 0.5, 0.0, 1.0)
    if look.pattern == "two-coloured":
        return np.clip(unit[..., 0] * size + 0.5, 0.0, 1.0)
    return _pattern_cover(look.pattern, unit / 0.7, 0.7 * size)


def _pattern_cover(pattern: str, cells: np.ndarray, pixels: np.ndarray | float) -> np.ndarray:
    """Coverage in [0, 1] of a pattern over coordinates in cells (..., 2), each cell `pixels` wide on the screen."""
    wave_x = _triangle_wave(cells[..., 0]) * pixels
    wave_y = _triangle_wave(cells[..., 1]) * pixels
    if pattern == "striped":
        return np.clip(0.5 + wave_x, 0.0, 1.0)
    if pattern == "checkered":
        x, y = np.clip(0.5 + wave_x, 0.0, 1.0), np.clip(0.5 + wave_y, 0.0, 1.0)
        return x * (1 - y) + y * (1 - x)
    centre = (cells - np.floor(cells) - 0.5) * np.asarray(pixels)[..., None]
    return np.clip(0.28 * pixels - np.linalg.norm(centre, axis=-1) + 0.5, 0.0, 1.0)


def _triangle_wave(x: np.ndarray) -> np.ndarray:
    """Signed distance, in cells, to the nearest stripe border of stripes half a cell wide."""
    return np.abs(x - np.floor(x) - 0.5) - 0.25


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 1.0


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.88


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(y, 0.8660254 * np.abs(x) - 0.5 * y) - 0.66


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    sector = 2 * np.pi / 5
    angle = np.arctan2(x, -y)
    folded = np.abs(angle - sector * np.round(angle / sector))
    radius = np.hypot(x, y)
    px, py = radius * np.cos(folded), radius * np.sin(folded)
    tip, notch = np.array([1.35, 0.0]), 0.58 * np.array([np.cos(sector / 2), np.sin(sector / 2)])
    way = (notch - tip) / np.linalg.norm(notch - tip)
    return (px - tip[0]) * way[1] - (py - tip[1]) * way[0]


_DISTANCES = {"circle": _circle, "square": _square, "triangle": _triangle, "star": _star}
