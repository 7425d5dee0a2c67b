"""Motion paths of the benchmark's objects and camera, of families that do not occur in the backbone's training clips.

Nor do they occur in `world.motions.HELD_OUT`, on whose clips parameters were chosen.
"""

from collections.abc import Callable

import numpy as np

from effivmt.world.motions import SIZE, Motion

Curve = Callable[[np.ndarray], np.ndarray]
"""From times (T,) in [0, 1] to points (T, 2) in [-1, 1]."""


def object_path(family: str, num_frames: int, radius: float, *, flip: bool = False) -> Motion:
    """The path of an object of `radius` pixels, at constant size and angle; `flip` mirrors it left to right."""
    unit = OBJECTS[family](np.linspace(0.0, 1.0, num_frames)) * [-1.0 if flip else 1.0, 1.0]
    centre = SIZE / 2 + unit * (SIZE / 2 - radius - 4.0)  # the object stays 4 pixels inside the frame
    zero = np.zeros(num_frames, np.float32)
    return Motion(centre.astype(np.float32), zero, zero + 1)


def camera_path(family: str, num_frames: int) -> np.ndarray:
    """Camera poses float32 (T, 4) as in `world.motions.camera`: shift x, shift y in pixels, log zoom, angle."""
    return np.stack(np.broadcast_arrays(*CAMERA[family](np.linspace(0.0, 1.0, num_frames))), 1).astype(np.float32)


def _along(*points: tuple[float, float]) -> Curve:
    """The polyline through points, each segment in the same time."""
    corners = np.array(points)

    def curve(t: np.ndarray) -> np.ndarray:
        at, index = t * (len(corners) - 1), np.arange(len(corners))
        return np.stack([np.interp(at, index, corners[:, axis]) for axis in (0, 1)], 1)

    return curve


def _heart(t: np.ndarray) -> np.ndarray:
    a = 2 * np.pi * t
    x = np.sin(a) ** 3
    y = -(13 * np.cos(a) - 5 * np.cos(2 * a) - 2 * np.cos(3 * a) - np.cos(4 * a)) / 16
    return np.stack([x, y], 1)


def _hopping(t: np.ndarray) -> np.ndarray:
    return np.stack([2 * t - 1, 0.9 - 1.7 * np.abs(np.sin(3 * np.pi * t))], 1)


OBJECTS: dict[str, Curve] = {
    "stairs": _along((-1, 0.9), (-0.5, 0.9), (-0.5, 0.3), (0.1, 0.3), (0.1, -0.3), (0.7, -0.3), (0.7, -0.9)),
    "hourglass": _along((-0.8, -0.9), (0.8, -0.9), (-0.8, 0.9), (0.8, 0.9), (-0.8, -0.9)),
    "triangle": _along((-0.9, 0.7), (0.9, 0.7), (0.0, -0.9), (-0.9, 0.7)),
    "heart": _heart,
    "hopping": _hopping,
    "hook": _along((-0.9, -0.9), (-0.9, 0.8), (0.3, 0.8), (0.9, 0.2), (0.9, -0.2)),
}
CAMERA: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]] = {
    "pan there and back": lambda t: (38 * (1 - np.abs(2 * t - 1)), 0 * t, 0 * t, 0 * t),
    "diagonal pan": lambda t: (34 * t, -26 * t, 0 * t, 0 * t),
    "circling": lambda t: (16 * np.cos(2 * np.pi * t), 16 * np.sin(2 * np.pi * t), 0 * t, 0 * t),
    "zoom in and out": lambda t: (0 * t, 0 * t, 0.55 * np.sin(np.pi * t), 0 * t),
    "rocking": lambda t: (0 * t, 0 * t, 0 * t, 0.45 * np.sin(3 * np.pi * t)),
    "zoom and turn": lambda t: (0 * t, 0 * t, 0.6 * t, -0.9 * t),
}
"""From times (T,) in [0, 1] to shift x and y in pixels, log zoom and angle in radians."""
