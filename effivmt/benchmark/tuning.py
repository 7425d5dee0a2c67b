"""Clips for choosing parameters, one for each class; no path, action or prompt of theirs is in the suite.

Objects take paths of `world.motions.HELD_OUT`. Camera and figure move as in the backbone's training clips, but the
captions do not name the motion. Half of the clips have looks that their caption does not name.
"""

import numpy as np

from effivmt.benchmark.scene import NUM_FRAMES, Scene, draw_camera_clip, draw_figure_clip, draw_object_clip
from effivmt.world.figure import pose
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import camera, held_out
from effivmt.world.scenes import describe, describe_ground, with_article

SEED = 4100
"""First of the seeds of the motions."""


def tuning_scenes() -> tuple[Scene, ...]:
    """All four scenes, in the order of the classes."""
    return _camera(), _object(), _pair(), _figure()


def _camera() -> Scene:
    ground, caption = Ground("gray", "checkered", 17.0, 0.55, (6, 1)), "a view of a checkered gray ground"
    prompts = (
        "a view of a checkered black ground",
        "a view of a striped brown ground with a blue circle",
        "a view of a spotted navy ground with an orange square",
    )
    poses = camera("zooms out", np.random.default_rng(SEED), NUM_FRAMES)
    return Scene("tuning-camera", "camera", caption, prompts, False, False, lambda: draw_camera_clip(ground, poses))


def _object() -> Scene:
    look, ground = Look("triangle", "purple", 10.5, "outlined", "yellow"), Ground("gray")
    caption = f"{describe(look)} on {describe_ground(ground)}"
    prompts = (
        "a green square on a navy background",
        "a white star on a brown background",
        "a blue circle on a black background",
    )
    motion = held_out("figure eight", np.random.default_rng(SEED + 1), NUM_FRAMES, look.radius)
    draw = lambda: draw_object_clip(ground, [(look, motion)])  # noqa: E731
    return Scene("tuning-object", "single object", caption, prompts, True, False, draw)


def _pair() -> Scene:
    first, second, ground = Look("square", "purple", 8.5), Look("triangle", "white", 9.0), Ground("black")
    caption = f"{describe(first)} and {describe(second)} on {describe_ground(ground)}"
    prompts = (
        "a green star and a white circle on a gray background",
        "a red triangle and a cyan star on a navy background",
        "a blue square and an orange circle on a brown background",
    )
    rng = np.random.default_rng(SEED + 2)
    families = (("rectangle", first), ("zigzag", second))
    paths = [(look, held_out(family, rng, NUM_FRAMES, look.radius)) for family, look in families]
    draw = lambda: draw_object_clip(ground, paths)  # noqa: E731
    return Scene("tuning-pair", "multiple objects", caption, prompts, False, False, draw)


def _figure() -> Scene:
    ground, shirt = Ground("navy", "striped", 16.0, 1.6, (3, 0)), "cyan"
    caption = f"a person in {with_article(shirt)} shirt on {describe_ground(ground)}"
    prompts = (
        "a person in a green shirt on a gray background",
        "a person in a blue shirt on a brown background",
        "a person in a purple shirt on a black background",
    )
    joints = pose("jumping", np.linspace(0, 4 * np.pi, NUM_FRAMES), np.random.default_rng(SEED + 3))
    draw = lambda: draw_figure_clip(ground, shirt, joints)  # noqa: E731
    return Scene("tuning-figure", "human motion", caption, prompts, True, False, draw)
