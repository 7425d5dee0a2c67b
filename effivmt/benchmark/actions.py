"""Actions of the benchmark's figures, none of which occurs in the backbone's training clips."""

from collections.abc import Callable

import numpy as np

from effivmt.world.figure import THIGH, skeleton
from effivmt.world.motions import SIZE

FLOOR = SIZE - 24.5
"""Height of the hip of a standing figure, in pixels from the top: the feet are then 5.5 pixels above the lower edge."""
Joints = dict[str, np.ndarray]
"""Joint positions float32 (T, 2) in pixels, by name."""
Course = float | np.ndarray
"""A number that holds for all frames, or its values (T,)."""
Limbs = tuple[tuple[Course, Course], tuple[Course, Course]]
"""For the first and the second limb of a pair, the angles of its upper and its lower segment, in radians."""
REST_LEGS: Limbs = ((0.12, 0.0), (-0.12, 0.0))
REST_ARMS: Limbs = ((0.25, 0.0), (-0.25, 0.0))


def action_joints(action: str, num_frames: int) -> Joints:
    """The joints of a figure that performs one of `ACTIONS` over the whole clip."""
    return ACTIONS[action](np.linspace(0.0, 1.0, num_frames))


def _figure(x: Course, y: Course, *, lean: Course = 0.0, legs: Limbs = REST_LEGS, arms: Limbs = REST_ARMS) -> Joints:
    """A figure with its hip at (x, y) pixels and its torso at `lean` radians."""
    x, y, lean = np.broadcast_arrays(x, y, lean)

    def pairs(limbs: Limbs) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(np.broadcast_to(upper, x.shape), np.broadcast_to(lower, x.shape)) for upper, lower in limbs]

    return skeleton(np.stack([x, y], 1).astype(float), lean, pairs(legs), pairs(arms))


def _bowing(t: np.ndarray) -> Joints:
    lean = 1.2 * np.sin(2 * np.pi * t) ** 2
    return _figure(26 + 0 * t, FLOOR, lean=lean, arms=((0.2 + 0.6 * lean, 0.0), (0.6 * lean - 0.2, 0.0)))


def _kicking(t: np.ndarray) -> Joints:
    swing = np.sin(2 * np.pi * 2 * t)
    kick = np.maximum(swing, 0) * 1.5
    return _figure(
        32 + 0 * t, FLOOR, lean=-0.15 * kick, legs=((kick, -0.2 * kick), (-0.12, 0.0)), arms=((-kick, 0), (0.8, 0))
    )


def _jumping_jack(t: np.ndarray) -> Joints:
    half = 0.5 - 0.5 * np.cos(2 * np.pi * 3 * t)
    legs = ((0.08 + 0.55 * half, 0.0), (-0.08 - 0.55 * half, 0.0))
    drop = 2 * THIGH * (1 - np.cos(0.55 * half))  # spread legs are shorter by the cosine of their angle
    return _figure(32 + 0 * t, FLOOR + drop - 5 * half, legs=legs, arms=((0.2 + 2.6 * half, 0), (-0.2 - 2.6 * half, 0)))


def _lunging(t: np.ndarray) -> Joints:
    half = 0.5 - 0.5 * np.cos(2 * np.pi * 2 * t)
    legs = ((0.1 + 0.9 * half, -0.9 * half), (-0.1 - 0.7 * half, -0.1 * half))
    return _figure(26 + 12 * half, FLOOR + 6 * half, legs=legs, arms=((1.4 * half, 0.0), (-0.6 * half, 0.0)))


def _marching(t: np.ndarray) -> Joints:
    wave = np.sin(2 * np.pi * 3 * t)
    up, down = np.maximum(wave, 0), np.maximum(-wave, 0)
    legs = ((1.3 * up + 0.08, -1.5 * up), (1.3 * down - 0.08, -1.5 * down))
    x = 32 + 12 * np.sin(2 * np.pi * t)
    return _figure(x, FLOOR, legs=legs, arms=((1.0 * down, 0.5 * down), (1.0 * up, 0.5 * up)))


def _swaying(t: np.ndarray) -> Joints:
    wave, slow = np.sin(2 * np.pi * 2 * t), np.sin(2 * np.pi * t)
    arms = ((2.6 + 0.5 * wave, 0.3 * wave), (-2.6 + 0.5 * wave, 0.3 * wave))
    return _figure(32 + 5 * slow, FLOOR, lean=0.35 * wave, legs=((0.25, 0.0), (-0.25, 0.0)), arms=arms)


ACTIONS: dict[str, Callable[[np.ndarray], Joints]] = {
    "bowing": _bowing,
    "kicking": _kicking,
    "jumping jacks": _jumping_jack,
    "lunging": _lunging,
    "marching": _marching,
    "swaying": _swaying,
}
"""From times (T,) in [0, 1] to joints."""
