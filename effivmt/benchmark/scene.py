"""A clip of the benchmark: what is told of it, and how it is drawn with its true tracks and mask."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from effivmt.world.drawing import draw_ground, draw_object
from effivmt.world.figure import draw_skeleton
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import SIZE, Motion

NUM_FRAMES = 33
CLASSES = ("camera", "single object", "multiple objects", "human motion")


@dataclass(frozen=True)
class Drawn:
    """frames uint8 (T, H, W, 3); tracks float32 (P, T, 2) of true points in pixels, the middle of the first pixel at
    0.5; visible bool (P, T): inside the frame; mask bool (T, H, W): what moves (all of it where the camera does)."""

    frames: np.ndarray
    tracks: np.ndarray
    visible: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Scene:
    """One clip; `unsaid`: it has looks that its caption does not name; `quick`: in the quick subset."""

    name: str
    group: str
    caption: str
    prompts: tuple[str, str, str]
    unsaid: bool
    quick: bool
    draw: Callable[[], Drawn]


def filmed(ground: Ground, poses: np.ndarray) -> Drawn:
    """A ground under a camera of `poses` (T, 4), as in `world.motions.camera`.

    The tracks are ground points on a grid over the first frame.
    """
    axis = np.linspace(4, SIZE - 4, 8)
    start = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2) - SIZE / 2
    fixed = _turned(start * np.exp(-poses[0, 2]), -poses[0, 3]) + poses[0, :2]
    tracks = [SIZE / 2 + np.exp(zoom) * _turned(fixed - [x, y], angle) for x, y, zoom, angle in poses]
    mask = np.ones((NUM_FRAMES, SIZE, SIZE), bool)
    return _drawn(draw_ground(ground, poses), np.stack(tracks, 1), mask)


def moved(ground: Ground, objects: list[tuple[Look, Motion]]) -> Drawn:
    """Objects along their paths; a track for each centre and eight points around it, hidden ones too."""
    canvas = draw_ground(ground, np.zeros((NUM_FRAMES, 4), np.float32))
    mask, tracks = np.zeros((NUM_FRAMES, SIZE, SIZE), bool), []
    around = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    for look, motion in objects:
        mask |= draw_object(canvas, look, motion) > 0.5
        points = np.concatenate([[[0, 0]], 0.5 * look.radius * np.stack([np.cos(around), np.sin(around)], 1)])
        tracks.append(points[:, None] + motion.centre[None])
    return _drawn(canvas, np.concatenate(tracks), mask)


def acted(ground: Ground, shirt: str, joints: dict[str, np.ndarray]) -> Drawn:
    """A figure of joints (T, 2) in pixels, as `world.figure.skeleton` gives them; its tracks are the joints."""
    canvas = draw_ground(ground, np.zeros((NUM_FRAMES, 4), np.float32))
    empty = canvas.copy()
    draw_skeleton(canvas, shirt, joints)
    return _drawn(canvas, np.stack(list(joints.values())), np.abs(canvas - empty).max(-1) > 8)


def _drawn(canvas: np.ndarray, tracks: np.ndarray, mask: np.ndarray) -> Drawn:
    visible = ((tracks >= 0) & (tracks < SIZE)).all(-1)
    return Drawn(np.clip(canvas + 0.5, 0, 255).astype(np.uint8), tracks.astype(np.float32), visible, mask)


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])
