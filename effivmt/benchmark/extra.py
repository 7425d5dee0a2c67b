"""The suite of what the MotionBench protocol has no class for: image to video, and a part of a clip's motion.

Paths are those of motionbench-mini; captions name every look. The truth of a clip is of the motion that is wanted.
"""

from functools import partial

import numpy as np

from effivmt.benchmark.paths import OBJECTS, camera_path, object_path
from effivmt.benchmark.scene import NUM_FRAMES, Scene, draw_object_clip, draw_part_clip
from effivmt.catalog import Box, MotionOf
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import SIZE, Motion
from effivmt.world.scenes import describe, describe_ground, object_clip

IMAGES, PARTS = "image to video", "part of the motion"
"""The classes of the suite."""
HALVES = (16.0, 48.0)
"""Heights of the middles of the paths of two objects, in pixels: each stays in its own half of the frame."""
REACH = (20.0, 7.0)
"""How far such a path goes from its middle to either side, in pixels."""


def extra_scenes() -> tuple[Scene, ...]:
    """All nine scenes: three of images, then two each of the camera, an object under a camera, and a region."""
    return (*_image_scenes(), *_view_scenes("camera"), *_view_scenes("object"), *_region_scenes())


def _image_scenes() -> list[Scene]:
    """The object of the first image begins where the reference's does, that of the second elsewhere."""
    cast = [
        ("hook", Look("star", "purple", 9.5), Ground("navy")),
        ("hopping", Look("triangle", "orange", 10.0), Ground("black")),
        ("heart", Look("circle", "white", 9.5), Ground("brown")),
    ]
    pictures = [
        [(Look("circle", "green", 9.5), Ground("gray")), (Look("square", "white", 9.0), Ground("black"))],
        [(Look("square", "cyan", 9.5), Ground("navy")), (Look("star", "yellow", 10.0), Ground("gray"))],
        [(Look("star", "red", 10.0), Ground("black")), (Look("triangle", "green", 10.0), Ground("navy"))],
    ]
    scenes = []
    for (family, look, ground), shown in zip(cast, pictures, strict=True):
        path = object_path(family, NUM_FRAMES, look.radius)
        places = (path.centre[0], np.array([SIZE / 2, SIZE / 2]))
        scenes.append(
            Scene(
                name=f"image-{family}",
                group=IMAGES,
                caption=f"{describe(look)} on {describe_ground(ground)}",
                prompts=tuple(f"{describe(of)} on {describe_ground(on)}" for of, on in shown),
                unsaid=False,
                quick=False,
                draw=partial(draw_object_clip, ground, [(look, path)]),
                images=tuple(_still(of, on, at) for (of, on), at in zip(shown, places, strict=True)),
            )
        )
    return scenes


def _view_scenes(motion_of: MotionOf) -> list[Scene]:
    """An object on a path of its own under a moving camera; what is wanted is the motion of one of the two."""
    checkered, spotted = Ground("brown", "checkered", 18.0, 1.6, (5, 9)), Ground("gray", "spotted", 17.0, 0.55, (7, 2))
    navy, gray = Ground("navy", "spotted", 18.0, 1.6, (3, 4)), Ground("gray", "checkered", 19.0, 0.55, (6, 1))
    cast = {
        "camera": [
            ("pan there and back", "heart", Look("circle", "cyan", 8.0), checkered),
            ("diagonal pan", "hopping", Look("star", "white", 8.5), spotted),
        ],
        "object": [
            ("circling", "stairs", Look("square", "yellow", 8.0), navy),
            ("pan there and back", "hook", Look("triangle", "white", 9.0), gray),
        ],
    }
    prompts = {
        "camera": (
            "a view of a striped navy ground with a red star",
            "a view of a spotted brown ground with a green triangle",
        ),
        "object": ("a purple star on a black background", "a blue circle on a brown background"),
    }
    scenes = []
    for camera, family, look, ground in cast[motion_of]:
        poses, objects = camera_path(camera, NUM_FRAMES), [(look, object_path(family, NUM_FRAMES, look.radius))]
        wanted = None if motion_of == "camera" else 0
        scenes.append(
            Scene(
                name=f"{motion_of}-of-{camera}-and-{family}".replace(" ", "-"),
                group=PARTS,
                caption=f"a view of {describe_ground(ground, pattern=True, noun='ground')} with {describe(look)}",
                prompts=prompts[motion_of],
                unsaid=False,
                quick=False,
                draw=partial(draw_part_clip, ground, poses, objects, wanted),
                motion_of=motion_of,
            )
        )
    return scenes


def _region_scenes() -> list[Scene]:
    """Two objects, each in its own half; what is wanted is the motion of the one that the region is around."""
    cast = [
        (("heart", Look("circle", "orange", 8.0)), ("stairs", Look("triangle", "cyan", 8.0)), Ground("black"), 0),
        (("hourglass", Look("star", "yellow", 8.5)), ("hopping", Look("triangle", "green", 8.0)), Ground("navy"), 1),
    ]
    prompts = ("a red square on a gray background", "a white star and a blue circle on a brown background")
    still, scenes = np.zeros((NUM_FRAMES, 4), np.float32), []
    for *named, ground, wanted in cast:
        objects = [(look, _in_half(family, y)) for (family, look), y in zip(named, HALVES, strict=True)]
        (_, first), (_, second) = named
        look, motion = objects[wanted]
        scenes.append(
            Scene(
                name=f"region-of-{named[wanted][0]}",
                group=PARTS,
                caption=f"{describe(first)} and {describe(second)} on {describe_ground(ground)}",
                prompts=prompts,
                unsaid=False,
                quick=False,
                draw=partial(draw_part_clip, ground, still, objects, wanted),
                region=_around(motion.centre[0], look.radius),
            )
        )
    return scenes


def _in_half(family: str, y: float) -> Motion:
    centre = np.array([SIZE / 2, y]) + OBJECTS[family](np.linspace(0.0, 1.0, NUM_FRAMES)) * REACH
    zero = np.zeros(NUM_FRAMES, np.float32)
    return Motion(centre.astype(np.float32), zero, zero + 1)


def _around(centre: np.ndarray, radius: float) -> Box:
    """The region of an object on the first frame, in shares of the frame: 3 pixels to spare on each side, or as many as
    there are.
    """
    low = [max(0.0, round(float(place - radius - 3) / SIZE, 4)) for place in centre]
    width, height = (round(min((2 * radius + 6) / SIZE, 1 - start), 4) for start in low)
    return low[0], low[1], width, height


def _still(look: Look, ground: Ground, centre: np.ndarray) -> np.ndarray:
    """An image uint8 (H, W, 3) of an object at (x, y) in pixels."""
    zero = np.zeros(1, np.float32)
    return object_clip(look, ground, Motion(centre.astype(np.float32)[None], zero, zero + 1), "").frames[0]
