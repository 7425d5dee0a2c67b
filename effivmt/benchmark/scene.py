"""A clip of the benchmark: its texts, and how it is drawn with its true tracks and mask."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from effivmt.catalog import Box, MotionOf
from effivmt.world.drawing import draw_ground, draw_object
from effivmt.world.figure import draw_skeleton
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import SIZE, Motion

NUM_FRAMES = 81
CLASSES = ("camera", "single object", "multiple objects", "human motion")


@dataclass(frozen=True)
class DrawnClip:
    """The frames of a clip with their ground truth.

    frames uint8 (T, H, W, 3); tracks float32 (P, T, 2): positions (x, y) of true points in pixels, where the middle of
    the first pixel is 0.5; visible bool (P, T): whether a point lies inside the frame; mask bool (T, H, W): what moves,
    which is everything under a moving camera.
    """

    frames: np.ndarray
    tracks: np.ndarray
    visible: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Scene:
    """One clip: `group` is its class, `unsaid` says that it has looks that its caption does not name, `quick` that it
    is in the quick subset.

    motion_of, region, images: as in a catalog's row; the images are uint8 (H, W, 3), one for each prompt.
    """

    name: str
    group: str
    caption: str
    prompts: tuple[str, ...]
    unsaid: bool
    quick: bool
    draw: Callable[[], DrawnClip]
    motion_of: MotionOf = "all"
    region: Box | None = None
    images: tuple[np.ndarray, ...] = ()


def draw_camera_clip(ground: Ground, poses: np.ndarray) -> DrawnClip:
    """A ground seen by a camera with `poses` (T, 4), as in `world.motions.camera`.

    The tracks are ground points on a grid over the first frame.
    """
    mask = np.ones((NUM_FRAMES, SIZE, SIZE), bool)
    return _drawn(draw_ground(ground, poses), _ground_tracks(poses), mask)


def draw_object_clip(ground: Ground, objects: list[tuple[Look, Motion]]) -> DrawnClip:
    """Objects on their paths, with tracks of each centre and eight points around it, occluded ones too."""
    canvas = draw_ground(ground, np.zeros((NUM_FRAMES, 4), np.float32))
    mask = np.any([draw_object(canvas, look, motion) > 0.5 for look, motion in objects], axis=0)
    return _drawn(canvas, np.concatenate([_object_tracks(look, motion) for look, motion in objects]), mask)


def draw_part_clip(
    ground: Ground, poses: np.ndarray, objects: list[tuple[Look, Motion]], wanted: int | None
) -> DrawnClip:
    """Objects on paths of their own over the frame, under a camera with `poses`; the truth is of one motion alone.

    wanted: the number of the object whose motion that is; None: it is the camera's, without the objects.
    """
    canvas = draw_ground(ground, poses)
    covers = [draw_object(canvas, look, motion) > 0.5 for look, motion in objects]
    if wanted is None:
        return _drawn(canvas, _ground_tracks(poses), ~np.any(covers, axis=0))
    return _drawn(canvas, _object_tracks(*objects[wanted]), covers[wanted])


def draw_figure_clip(ground: Ground, shirt: str, joints: dict[str, np.ndarray]) -> DrawnClip:
    """A figure with joints (T, 2) in pixels, as `world.figure.skeleton` gives them; its tracks are the joints."""
    canvas = draw_ground(ground, np.zeros((NUM_FRAMES, 4), np.float32))
    empty = canvas.copy()
    draw_skeleton(canvas, shirt, joints)
    mask = np.abs(canvas - empty).max(-1) > 8  # gray levels of 255: less is the soft edge of a limb
    return _drawn(canvas, np.stack(list(joints.values())), mask)


def _drawn(canvas: np.ndarray, tracks: np.ndarray, mask: np.ndarray) -> DrawnClip:
    visible = np.all((tracks >= 0) & (tracks < SIZE), axis=-1)
    return DrawnClip(np.clip(canvas + 0.5, 0, 255).astype(np.uint8), tracks.astype(np.float32), visible, mask)


def _ground_tracks(poses: np.ndarray) -> np.ndarray:
    """Points of the ground on a grid over the first frame, (P, T, 2)."""
    axis = np.linspace(4, SIZE - 4, 8)
    start = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2) - SIZE / 2
    fixed = _rotated(start * np.exp(-poses[0, 2]), -poses[0, 3]) + poses[0, :2]
    return np.stack([SIZE / 2 + np.exp(zoom) * _rotated(fixed - [x, y], angle) for x, y, zoom, angle in poses], 1)


def _object_tracks(look: Look, motion: Motion) -> np.ndarray:
    """The centre of an object and eight points around it, (P, T, 2)."""
    around = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    points = np.concatenate([[[0, 0]], 0.5 * look.radius * np.stack([np.cos(around), np.sin(around)], 1)])
    return points[:, None] + motion.centre[None]


def _rotated(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])
