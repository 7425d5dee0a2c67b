"""Paths: where an object is, how it turns and grows, frame by frame; and how the camera moves.

A frame is `SIZE` x `SIZE` pixels at `FPS` frames a second. Named motions keep one meaning (what a caption can say);
`wander` is any smooth path with changing speed, stops and turns. The families in `HELD_OUT` have corners, loops or
turning points that neither kind draws: they are kept for evaluation and are never trained on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIZE = 64
FPS = 16


@dataclass(frozen=True)
class Motion:
    """centre float32 (T, 2) in pixels (x, y), angle float32 (T,) in radians, scale float32 (T,)."""

    centre: np.ndarray
    angle: np.ndarray
    scale: np.ndarray


def named(name: str, rng: np.random.Generator, num_frames: int, radius: float) -> Motion:
    """A motion that a caption can name, one of `NAMED`."""
    return NAMED[name](rng, num_frames, radius)


def wander(rng: np.random.Generator, num_frames: int, radius: float) -> Motion:
    """A smooth random path: a spline through 3 to 6 random points, walked at a varying speed, sometimes turning."""
    low, high = radius + 2.0, SIZE - radius - 2.0
    knots = rng.uniform(low, high, (int(rng.integers(3, 7)), 2))
    pace = np.cumsum(np.concatenate([[0.0], _smooth_noise(rng, num_frames - 1) ** 2]))
    along = pace / max(pace[-1], 1e-6) * (len(knots) - 1) * rng.uniform(0.35, 1.0)
    centre = np.clip(_catmull_rom(knots, along), low, high)
    spin = rng.choice([0.0, 0.0, 1.0]) * rng.uniform(-1.5, 1.5)
    angle = rng.uniform(-0.3, 0.3) + spin * np.linspace(0.0, 1.0, num_frames)
    return _motion(centre, angle, np.ones(num_frames))


def held_out(name: str, rng: np.random.Generator, num_frames: int, radius: float) -> Motion:
    """A path of a family that training never draws, one of `HELD_OUT`."""
    t = np.linspace(0.0, 1.0, num_frames)
    reach = SIZE / 2 - radius - 4.0
    sign = rng.choice([-1.0, 1.0])
    unit = HELD_OUT[name](t)
    centre = SIZE / 2 + unit * np.array([sign, rng.choice([-1.0, 1.0])]) * reach * rng.uniform(0.85, 1.0)
    return _motion(centre, np.zeros(num_frames), np.ones(num_frames))


def _motion(centre: np.ndarray, angle: np.ndarray, scale: np.ndarray) -> Motion:
    return Motion(centre.astype(np.float32), angle.astype(np.float32), scale.astype(np.float32))


def _straight(direction: tuple[float, float]) -> Callable[[np.random.Generator, int, float], Motion]:
    def make(rng: np.random.Generator, num_frames: int, radius: float) -> Motion:
        low, high = radius + 2.0, SIZE - radius - 2.0
        way = np.asarray(direction)
        travel = rng.uniform(0.65, 1.0) * (high - low)
        middle = rng.uniform(low, high, 2)
        moving = np.abs(way) > 0
        middle[moving] = rng.uniform(low + travel / 2, high - travel / 2)
        along = (np.linspace(-0.5, 0.5, num_frames) * travel)[:, None] * way
        return _motion(middle + along, np.full(num_frames, rng.uniform(-0.3, 0.3)), np.ones(num_frames))

    return make


def _circle(rng: np.random.Generator, num_frames: int, radius: float) -> Motion:
    around = rng.uniform(0.55, 1.0) * (SIZE / 2 - radius - 2.0)
    room = SIZE / 2 - radius - 2.0 - around
    turn = rng.uniform(0, 2 * np.pi) + rng.choice([-1.0, 1.0]) * np.linspace(
        0, 2 * np.pi * rng.uniform(1, 1.6), num_frames
    )
    centre = SIZE / 2 + rng.uniform(-room, room, 2) + around * np.stack([np.cos(turn), np.sin(turn)], 1)
    return _motion(centre, np.full(num_frames, rng.uniform(-0.3, 0.3)), np.ones(num_frames))


def _bouncing(rng: np.random.Generator, num_frames: int, radius: float) -> Motion:
    floor, height = SIZE - radius - 3.0, rng.uniform(20.0, 32.0)
    phase = rng.uniform(0, 1) + np.linspace(0, rng.uniform(2.0, 3.5), num_frames)
    y = floor - height * (1 - (2 * (phase % 1.0) - 1) ** 2)
    x = np.full(num_frames, rng.uniform(radius + 3, SIZE - radius - 3))
    return _motion(np.stack([x, y], 1), np.full(num_frames, rng.uniform(-0.2, 0.2)), np.ones(num_frames))


def _resizing(start: float, stop: float) -> Callable[[np.random.Generator, int, float], Motion]:
    def make(rng: np.random.Generator, num_frames: int, radius: float) -> Motion:
        centre = np.repeat(rng.uniform(22, SIZE - 22, (1, 2)), num_frames, 0)
        scale = np.linspace(start, stop, num_frames)
        return _motion(centre, np.full(num_frames, rng.uniform(-0.3, 0.3)), scale)

    return make


NAMED: dict[str, Callable[[np.random.Generator, int, float], Motion]] = {
    "moving left": _straight((-1, 0)),
    "moving right": _straight((1, 0)),
    "moving up": _straight((0, -1)),
    "moving down": _straight((0, 1)),
    "moving in a circle": _circle,
    "bouncing": _bouncing,
    "growing": _resizing(0.55, 1.75),
    "shrinking": _resizing(1.75, 0.55),
}


def _polyline(points: np.ndarray, t: np.ndarray) -> np.ndarray:
    at = t * (len(points) - 1)
    return np.stack([np.interp(at, np.arange(len(points)), points[:, axis]) for axis in (0, 1)], 1)


def _zigzag(t: np.ndarray) -> np.ndarray:
    return _polyline(np.array([[-1, -0.8], [-0.5, 0.8], [0, -0.8], [0.5, 0.8], [1, -0.8]]), t)


def _rectangle(t: np.ndarray) -> np.ndarray:
    return _polyline(np.array([[-0.9, -0.8], [0.9, -0.8], [0.9, 0.8], [-0.9, 0.8], [-0.9, -0.8]]), t)


def _figure_eight(t: np.ndarray) -> np.ndarray:
    return np.stack([np.sin(2 * np.pi * t), np.sin(4 * np.pi * t) * 0.8], 1)


def _spiral(t: np.ndarray) -> np.ndarray:
    return (1 - 0.85 * t)[:, None] * np.stack([np.cos(4 * np.pi * t), np.sin(4 * np.pi * t)], 1)


def _there_and_back(t: np.ndarray) -> np.ndarray:
    return np.stack([1 - 2 * np.abs(2 * t - 1), 0.7 * (2 * t - 1)], 1)


HELD_OUT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "zigzag": _zigzag,
    "rectangle": _rectangle,
    "figure eight": _figure_eight,
    "spiral": _spiral,
    "there and back": _there_and_back,
}


def camera(name: str, rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """Camera poses float32 (T, 4): shift x, shift y in pixels, log zoom, angle; `name` is one of `CAMERA`."""
    dx, dy, zoom, turn = CAMERA[name]
    amount = rng.uniform(0.6, 1.0)
    ramp = np.linspace(0.0, 1.0, num_frames)[:, None]
    return (ramp * amount * np.array([[dx * 44.0, dy * 44.0, zoom * 0.8, turn * 1.2]])).astype(np.float32)


CAMERA: dict[str, tuple[float, float, float, float]] = {
    "pans left": (-1, 0, 0, 0),
    "pans right": (1, 0, 0, 0),
    "pans up": (0, -1, 0, 0),
    "pans down": (0, 1, 0, 0),
    "zooms in": (0, 0, 1, 0),
    "zooms out": (0, 0, -1, 0),
    "rotates": (0, 0, 0, 1),
}


def _smooth_noise(rng: np.random.Generator, length: int) -> np.ndarray:
    """float64 (length,) positive, smooth, with stretches near zero (an object that slows down and stops)."""
    knots = rng.uniform(0.0, 1.0, 5)
    return np.interp(np.linspace(0, 4, length), np.arange(5), knots)


def _catmull_rom(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The Catmull-Rom spline through points (K, 2) at parameters in [0, K - 1]; returns (len(at), 2)."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    i = np.clip(at.astype(int), 0, len(points) - 2)
    u = (at - i)[:, None]
    p0, p1, p2, p3 = (padded[i + k] for k in range(4))
    return 0.5 * (2 * p1 + (p2 - p0) * u + (2 * p0 - 5 * p1 + 4 * p2 - p3) * u**2 + (3 * p1 - p0 - 3 * p2 + p3) * u**3)
