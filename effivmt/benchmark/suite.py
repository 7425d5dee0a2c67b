"""motionbench-mini: 24 clips with true tracks and masks, six for each class of the MotionBench protocol.

Paths and actions are of families that do not occur in the backbone's training clips. Half of the clips of each class
have looks that their caption does not name (patterns of objects and grounds), as real footage has: these can leak.
"""

from collections.abc import Callable, Sequence

from effivmt.benchmark.actions import ACTIONS, action_joints
from effivmt.benchmark.paths import CAMERA, OBJECTS, camera_path, object_path
from effivmt.benchmark.scene import (
    NUM_FRAMES,
    DrawnClip,
    Scene,
    draw_camera_clip,
    draw_figure_clip,
    draw_object_clip,
)
from effivmt.world.looks import GROUNDS, Ground, Look
from effivmt.world.scenes import describe, describe_ground, with_article


def suite() -> tuple[Scene, ...]:
    """All 24 scenes, class by class."""
    return (*_camera_scenes(), *_object_scenes(), *_pair_scenes(), *_figure_scenes())


def quick(scenes: Sequence[Scene]) -> list[Scene]:
    """Two scenes of each class: one whose caption names every look, and one whose caption does not.

    Which of the two comes first alternates between the classes, so that the first scenes of all classes, which
    `bench --clips 4` takes, are of both kinds.
    """
    chosen: list[Scene] = []
    for turn, group in enumerate(dict.fromkeys(scene.group for scene in scenes)):
        pair = [scene for scene in scenes if scene.quick and scene.group == group]
        chosen += pair if turn % 2 == 0 else reversed(pair)
    return chosen


def _scene(
    name: str,
    group: str,
    number: int,
    caption: str,
    *,
    prompts: tuple[str, str, str],
    draw: Callable[[], DrawnClip],
) -> Scene:
    """Scene `number` of its class: captions of 0 to 2 name every look, those of 3 to 5 do not; 0 and 3 are quick."""
    return Scene(
        name=f"{group}-{name}".replace(" ", "-"),
        group=group,
        caption=caption,
        prompts=prompts,
        unsaid=number >= 3,
        quick=number in (0, 3),
        draw=draw,
    )


def _camera_scenes() -> list[Scene]:
    grounds = [
        Ground("brown", "checkered", 16.0, 1.6, (5, 9)),
        Ground("navy", "spotted", 18.0, 1.6, (3, 4)),
        Ground("gray", "spotted", 15.0, 0.55, (7, 2)),
        Ground("gray", "spotted", 18.0, 0.55, (1, 6)),
        Ground("brown", "spotted", 16.0, 1.6, (8, 3)),
        Ground("navy", "checkered", 20.0, 1.6, (2, 2)),
    ]
    scenes = []
    for number, (family, ground) in enumerate(zip(CAMERA, grounds, strict=True)):
        caption = f"a view of {describe_ground(ground, pattern=number < 3, noun='ground')}"
        others = [colour for colour in GROUNDS if colour not in (ground.colour, "black")]  # on black no pattern shows
        prompts = (
            f"a view of a striped {others[0]} ground",
            f"a view of a checkered {others[1]} ground with a white star",
            f"a view of a spotted {others[0]} ground with a green triangle",
        )
        draw = lambda g=ground, f=family: draw_camera_clip(g, camera_path(f, NUM_FRAMES))  # noqa: E731
        scenes.append(_scene(family, "camera", number, caption, prompts=prompts, draw=draw))
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
        draw = lambda g=ground, p=paths: draw_object_clip(g, p)  # noqa: E731
        scenes.append(_scene(family, "single object", number, caption, prompts=prompts, draw=draw))
    return scenes


def _pair_scenes() -> list[Scene]:
    looks = [
        (Look("circle", "orange", 8.5), Look("square", "blue", 8.5), Ground("brown")),
        (Look("star", "yellow", 9.0), Look("circle", "blue", 8.5), Ground("black")),
        (Look("triangle", "green", 9.0), Look("star", "white", 9.0), Ground("navy")),
        (Look("square", "orange", 8.5, "checkered", "blue"), Look("circle", "white", 8.5), Ground("navy")),
        (Look("circle", "green", 8.5), Look("triangle", "yellow", 9.0, "outlined", "red"), Ground("gray")),
        (Look("star", "cyan", 9.0), Look("square", "red", 8.5), Ground("gray", "striped", 18.0, 0.55, (4, 0))),
    ]
    families, flipped = list(OBJECTS), (2, 4, 5)  # so that the two seldom overlap
    prompts = (
        "a green star and a cyan triangle on a navy background",
        "a blue star and a yellow circle on a brown background",
        "a purple circle and a white triangle on a black background",
    )
    scenes = []
    for number, (first, second, ground) in enumerate(looks):
        one, other = families[number], families[(number + 1) % len(families)]
        caption = f"{describe(first)} and {describe(second)} on {describe_ground(ground)}"
        paths = [
            (first, object_path(one, NUM_FRAMES, first.radius)),
            (second, object_path(other, NUM_FRAMES, second.radius, flip=number in flipped)),
        ]
        draw = lambda g=ground, p=paths: draw_object_clip(g, p)  # noqa: E731
        scenes.append(_scene(f"{one} and {other}", "multiple objects", number, caption, prompts=prompts, draw=draw))
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
    scenes = []
    for number, (action, shirt, ground) in enumerate(zip(ACTIONS, shirts, grounds, strict=True)):
        caption = f"a person in {with_article(shirt)} shirt on {describe_ground(ground)}"
        prompts = (
            "a person in an orange shirt on a navy background",
            f"a person in a {'red' if shirt == 'white' else 'white'} shirt on a black background",
            "a person in a cyan shirt on a gray background",
        )
        draw = lambda g=ground, s=shirt, a=action: draw_figure_clip(g, s, action_joints(a, NUM_FRAMES))  # noqa: E731
        scenes.append(_scene(action, "human motion", number, caption, prompts=prompts, draw=draw))
    return scenes
