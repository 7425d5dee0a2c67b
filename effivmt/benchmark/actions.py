"""What the benchmark's figures do: actions that the backbone's training never draws."""

from collections.abc import Callable

import numpy as np

from effivmt.world.figure import THIGH, skeleton
from effivmt.world.motions import SIZE

FLOOR = SIZE - 24.5
"""Height of the hip of a figure that stands, in pixels from the top."""


def act(action: str, num_frames: int) -> dict[str, np.ndarray]:
    """Joint positions float32 (T, 2) in pixels, by name, of a figure doing one of `ACTIONS`."""
    return ACTIONS[action](np.linspace(0.0, 1.0, num_frames))


def _standing(x, y, lean=0.0, legs=((0.12, 0.0), (-0.12, 0.0)), arms=((0.25, 0.0), (-0.25, 0.0))) -> dict:
    """A figure with its hip at (x, y), each argument a number or an array (T,)."""
    x, y, lean = np.broadcast_arrays(x, y, lean)
    limbs = [[tuple(np.broadcast_to(angle, x.shape) for angle in pair) for pair in pairs] for pairs in (legs, arms)]
    return skeleton(np.stack([x, y], 1).astype(float), lean, *limbs)


def _bowing(t: np.ndarray) -> dict:
    lean = 1.2 * np.sin(2 * np.pi * t) ** 2
    return _standing(26 + 0 * t, FLOOR, lean, arms=((0.2 + 0.6 * lean, 0.0), (0.6 * lean - 0.2, 0.0)))


def _kicking(t: np.ndarray) -> dict:
    swing = np.sin(2 * np.pi * 2 * t)
    kick = np.maximum(swing, 0) * 1.5
    return _standing(
        32 + 0 * t, FLOOR, -0.15 * kick, legs=((kick, -0.2 * kick), (-0.12, 0.0)), arms=((-kick, 0), (0.8, 0))
    )


def _jumping_jack(t: np.ndarray) -> dict:
    half = 0.5 - 0.5 * np.cos(2 * np.pi * 3 * t)
    legs = ((0.08 + 0.55 * half, 0.0), (-0.08 - 0.55 * half, 0.0))
    drop = 2 * THIGH * (1 - np.cos(0.55 * half))
    return _standing(
        32 + 0 * t, FLOOR + drop - 5 * half, legs=legs, arms=((0.2 + 2.6 * half, 0), (-0.2 - 2.6 * half, 0))
    )


def _lunging(t: np.ndarray) -> dict:
    half = 0.5 - 0.5 * np.cos(2 * np.pi * 2 * t)
    legs = ((0.1 + 0.9 * half, -0.9 * half), (-0.1 - 0.7 * half, -0.1 * half))
    return _standing(26 + 12 * half, FLOOR + 6 * half, legs=legs, arms=((1.4 * half, 0.0), (-0.6 * half, 0.0)))


def _marching(t: np.ndarray) -> dict:
    wave = np.sin(2 * np.pi * 3 * t)
    up, down = np.maximum(wave, 0), np.maximum(-wave, 0)
    legs = ((1.3 * up + 0.08, -1.5 * up), (1.3 * down - 0.08, -1.5 * down))
    x = 32 + 12 * np.sin(2 * np.pi * t)
    return _standing(x, FLOOR, legs=legs, arms=((1.0 * down, 0.5 * down), (1.0 * up, 0.5 * up)))


def _swaying(t: np.ndarray) -> dict:
    wave, slow = np.sin(2 * np.pi * 2 * t), np.sin(2 * np.pi * t)
    arms = ((2.6 + 0.5 * wave, 0.3 * wave), (-2.6 + 0.5 * wave, 0.3 * wave))
    return _standing(32 + 5 * slow, FLOOR, 0.35 * wave, legs=((0.25, 0.0), (-0.25, 0.0)), arms=arms)


ACTIONS: dict[str, Callable[[np.ndarray], dict]] = {
    "bowing": _bowing,
    "kicking": _kicking,
    "jumping jacks": _jumping_jack,
    "lunging": _lunging,
    "marching": _marching,
    "swaying": _swaying,
}
