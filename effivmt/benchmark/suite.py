"""motionbench-mini: 24 clips with true tracks and masks, six for each class of the MotionBench protocol.

Paths and actions are of families that the backbone's training never draws. Half of the clips of each class have looks
that their caption does not name (patterns of objects and grounds), as real footage has: there appearance can leak.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from effivmt.benchmark.actions import ACTIONS, act
from effivmt.benchmark.paths import CAMERA, OBJECTS, camera_path, object_path
from effivmt.world.drawing import draw_ground, draw_object
from effivmt.world.figure import draw_skeleton
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import SIZE, Motion
from effivmt.world.scenes import describe, describe_ground, with_article

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
    """One clip of the suite; `unsaid`: it has looks that its caption does not name; `quick`: in the subset of 8."""

    name: str
    group: str
    caption: str
    prompts: tuple[str, str, str]
    unsaid: bool
    quick: bool
    draw: Callable[[], Drawn]


def suite() -> tuple[Scene, ...]:
    """All 24 scenes, class by class."""
    return (*_camera_scenes(), *_object_scenes(), *_pair_scenes(), *_figure_scenes())


def _scene(name: str, group: str, number: int, caption: str, prompts: tuple, draw: Callable[[], Drawn]) -> Scene:
    """Scenes 0 to 2 of a class say all, 3 to 5 do not; one of each kind is quick."""
    return Scene(f"{group}-{name}".replace(" ", "-"), group, caption, prompts, number >= 3, number in (0, 3), draw)


def _camera_scenes() -> list[Scene]:
    grounds = [
        Ground("brown", "checkered", 16.0, 1.6, (5, 9)),
        Ground("navy", "spotted", 18.0, 1.6, (3, 4)),
        Ground("gray", "spotted", 15.0, 0.55, (7, 2)),
        Ground("gray", "spotted", 18.0, 0.55, (1, 6)),
        Ground("brown", "spotted", 16.0, 1.6, (8, 3)),
        Ground("navy", "checkered", 20.0, 1.6, (2, 2)),
    ]
    prompts = (
        "a view of a striped navy ground",
        "a view of a checkered gray ground with a red star",
        "a view of a spotted black ground with a yellow circle",
    )
    scenes = []
    for number, (family, ground) in enumerate(zip(CAMERA, grounds, strict=True)):
        caption = f"a view of {describe_ground(ground, pattern=number < 3, noun='ground')}"
        scenes.append(_scene(family, "camera", number, caption, prompts, lambda f=family, g=ground: _filmed(f, g)))
    return scenes


def _object_scenes() -> list[Scene]:
    cast = [
        (Look("circle", "green", 9.5), Ground("navy")),
        (Look("square", "yellow", 10.0), Ground("black")),
        (Look("star", "red", 10.0), Ground("gray")),
        (Look("square", "cyan", 10.0, "striped", "red"), Ground("black")),
        (Look("circle", "orange", 10.0, "two-coloured", "white"), Ground("navy")),
        (Look("triangle", "white", 10.5, "outlined", "blue"), Ground("brown", "spotted", 18.0, 0.55, (3, 3))),
    ]
    prompts = (
        "a purple star on a black background",
        "a blue circle on a gray background",
        "a white square on a brown background",
    )
    scenes = []
    for number, (family, (look, ground)) in enumerate(zip(OBJECTS, cast, strict=True)):
        caption = f"{describe(look)} on {describe_ground(ground)}"
        paths = [(look, object_path(family, NUM_FRAMES, look.radius, flip=number % 2 == 1))]
        draw = lambda g=ground, p=paths: _moved(g, p)  # noqa: E731
        scenes.append(_scene(family, "single object", number, caption, prompts, draw))
    return scenes


def _pair_scenes() -> list[Scene]:
    looks = [
        (Look("circle", "red", 8.5), Look("square", "cyan", 8.5), Ground("black")),
        (Look("star", "yellow", 9.0), Look("circle", "blue", 8.5), Ground("gray")),
        (Look("triangle", "green", 9.0), Look("star", "white", 9.0), Ground("navy")),
        (Look("square", "orange", 8.5, "checkered", "blue"), Look("circle", "white", 8.5), Ground("black")),
        (Look("circle", "green", 8.5), Look("triangle", "yellow", 9.0, "outlined", "red"), Ground("navy")),
        (Look("star", "cyan", 9.0), Look("square", "red", 8.5), Ground("gray", "striped", 18.0, 0.55, (4, 0))),
    ]
    families = list(OBJECTS)
    prompts = (
        "a white star and a red square on a navy background",
        "a yellow circle and a blue triangle on a black background",
        "an orange square and a green circle on a brown background",
    )
    scenes = []
    for number, (first, second, ground) in enumerate(looks):
        one, other = families[number], families[(number + 2) % len(families)]
        caption = f"{describe(first)} and {describe(second)} on {describe_ground(ground)}"
        paths = [
            (first, object_path(one, NUM_FRAMES, first.radius)),
            (second, object_path(other, NUM_FRAMES, second.radius, flip=True, reach=0.8)),
        ]
        draw = lambda g=ground, p=paths: _moved(g, p)  # noqa: E731
        scenes.append(_scene(f"{one} and {other}", "multiple objects", number, caption, prompts, draw))
    return scenes


def _figure_scenes() -> list[Scene]:
    shirts = ("red", "blue", "green", "yellow", "purple", "white")
    grounds = [
        Ground("black"),
        Ground("gray"),
        Ground("navy"),
        Ground("black", "striped", 16.0, 1.6, (2, 2)),
        Ground("gray", "checkered", 18.0, 0.55, (6, 1)),
        Ground("brown", "spotted", 18.0, 1.6, (5, 5)),
    ]
    prompts = (
        "a person in an orange shirt on a navy background",
        "a person in a white shirt on a black background",
        "a person in a cyan shirt on a gray background",
    )
    scenes = []
    for number, (action, shirt, ground) in enumerate(zip(ACTIONS, shirts, grounds, strict=True)):
        caption = f"a person in {with_article(shirt)} shirt on {describe_ground(ground)}"
        draw = lambda a=action, s=shirt, g=ground: _acted(a, s, g)  # noqa: E731
        scenes.append(_scene(action, "human motion", number, caption, prompts, draw))
    return scenes


def _filmed(family: str, ground: Ground) -> Drawn:
    """A ground under a moving camera; its tracks are ground points on a grid over the first frame."""
    poses = camera_path(family, NUM_FRAMES)
    axis = np.linspace(4, SIZE - 4, 8)
    start = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2) - SIZE / 2
    fixed = _turned(start * np.exp(-poses[0, 2]), -poses[0, 3]) + poses[0, :2]
    tracks = [SIZE / 2 + np.exp(zoom) * _turned(fixed - [x, y], angle) for x, y, zoom, angle in poses]
    mask = np.ones((NUM_FRAMES, SIZE, SIZE), bool)
    return _drawn(draw_ground(ground, poses), np.stack(tracks, 1), mask)


def _moved(ground: Ground, objects: list[tuple[Look, Motion]]) -> Drawn:
    """Objects along their paths; a track for each centre and eight points around it, hidden ones too."""
    canvas = draw_ground(ground, np.zeros((NUM_FRAMES, 4), np.float32))
    mask, tracks = np.zeros((NUM_FRAMES, SIZE, SIZE), bool), []
    around = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    for look, motion in objects:
        mask |= draw_object(canvas, look, motion) > 0.5
        points = np.concatenate([[[0, 0]], 0.5 * look.radius * np.stack([np.cos(around), np.sin(around)], 1)])
        tracks.append(points[:, None] + motion.centre[None])
    return _drawn(canvas, np.concatenate(tracks), mask)


def _acted(action: str, shirt: str, ground: Ground) -> Drawn:
    """A figure; its tracks are the joints."""
    canvas = draw_ground(ground, np.zeros((NUM_FRAMES, 4), np.float32))
    empty, joints = canvas.copy(), act(action, NUM_FRAMES)
    draw_skeleton(canvas, shirt, joints)
    return _drawn(canvas, np.stack(list(joints.values())), np.abs(canvas - empty).max(-1) > 8)


def _drawn(canvas: np.ndarray, tracks: np.ndarray, mask: np.ndarray) -> Drawn:
    visible = ((tracks >= 0) & (tracks < SIZE)).all(-1)
    return Drawn(np.clip(canvas + 0.5, 0, 255).astype(np.uint8), tracks.astype(np.float32), visible, mask)


def _turned(points: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])
