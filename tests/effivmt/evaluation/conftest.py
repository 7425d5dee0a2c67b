"""Clips with known motion: antialiased shapes and an endless smooth texture, drawn by formula at any position."""

from collections.abc import Callable

import numpy as np
import pytest

GRAY = (118, 118, 118)
RED = (225, 35, 35)


@pytest.fixture(scope="session")
def paint() -> Callable[..., np.ndarray]:
    """paint(shape, centre (T, 2), ...) -> uint8 (T, H, W, 3): one shape over a colour or over given frames."""
    return _paint


@pytest.fixture(scope="session")
def texture() -> Callable[..., np.ndarray]:
    """texture(shift (T, 2), zoom (T,), ...) -> uint8 (T, H, W, 3): what a camera sees of a textured ground."""
    return _texture


@pytest.fixture(scope="session")
def curve() -> np.ndarray:
    """float32 (33, 2): a path in a 64 x 64 frame that differs from its reverse and from its mirror image."""
    turn = np.linspace(0.0, 4.2, 33)
    return np.stack([31.5 + 17 * np.cos(turn), 29.5 + 15 * np.sin(turn) + turn], 1).astype(np.float32)


@pytest.fixture(scope="session")
def zigzag() -> np.ndarray:
    """float32 (33, 2): a path in a 64 x 64 frame unlike `curve`."""
    t = np.arange(33)
    return np.stack([14 + 1.1 * t, 20 + 2.2 * np.abs((t % 16) - 8)], 1).astype(np.float32)


def _paint(
    shape: str,
    centre: np.ndarray,
    *,
    radius: float = 10.0,
    angle: np.ndarray | float = 0.0,
    scale: np.ndarray | float = 1.0,
    colour: tuple[int, int, int] = RED,
    ground: tuple[int, int, int] | np.ndarray = GRAY,
    size: tuple[int, int] = (64, 64),
) -> np.ndarray:
    height, width = ground.shape[1:3] if isinstance(ground, np.ndarray) else size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    dx, dy = x - centre[:, 0, None, None], y - centre[:, 1, None, None]
    angle, scale = (np.broadcast_to(value, len(centre))[:, None, None] for value in (angle, scale))
    u, v = (dx * np.cos(angle) + dy * np.sin(angle)) / scale, (dy * np.cos(angle) - dx * np.sin(angle)) / scale
    distance = {
        "circle": np.hypot(u, v) - radius,
        "square": np.maximum(np.abs(u), np.abs(v)) - 0.9 * radius,
        "triangle": np.maximum(v, 0.866 * np.abs(u) - 0.5 * v) - 0.65 * radius,
    }[shape]
    cover = np.clip(0.5 - distance * scale, 0, 1)[..., None]
    below = np.broadcast_to(np.asarray(ground, np.float32), (len(centre), height, width, 3))
    return (below + cover * (np.asarray(colour, np.float32) - below)).round().astype(np.uint8)


def _texture(
    shift: np.ndarray, zoom: np.ndarray | float = 1.0, *, size: tuple[int, int] = (64, 64), wave: float = 12.0
) -> np.ndarray:
    """Sums waves about `wave` pixels long; a ground point p is seen at centre + (p - centre - shift) * zoom."""
    rng = np.random.default_rng(3)
    height, width = size
    middle = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    zoom = np.broadcast_to(zoom, len(shift)).astype(np.float32)[:, None, None, None]
    at = middle + (pixels - middle) / zoom + np.asarray(shift, np.float32)[:, None, None]
    frames = np.full((*at.shape[:3], 3), 128.0, np.float32)
    for _ in range(16):
        turn, phase = rng.uniform(0, 2 * np.pi, 2)
        rate = 2 * np.pi / (wave * rng.uniform(0.7, 1.6))
        waves = np.cos(at[..., 0] * (rate * np.cos(turn)) + at[..., 1] * (rate * np.sin(turn)) + phase)
        frames += waves[..., None] * rng.uniform(-14, 14, 3).astype(np.float32)
    return frames.clip(0, 255).round().astype(np.uint8)
