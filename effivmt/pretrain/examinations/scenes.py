"""Examines a trained backbone on what has more than one object: pairs, camera motion and figures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from effivmt.config import RenderParams
from effivmt.pretrain.examinations.captions import draw_captions
from effivmt.pretrain.examinations.scene_judge import judge_camera, judge_figure, judge_pair
from effivmt.world.figure import ACTIONS
from effivmt.world.looks import COLOURS, GROUNDS, SHAPES
from effivmt.world.motions import CAMERA
from effivmt.world.scenes import with_article

Asked = dict[str, str]
SCENES = ("pair", "camera", "figure")


def scene_questions(kind: str, count: int) -> list[Asked]:
    """`count` captions of a kind under "caption", each with the attributes it names; the same every time.

    Camera motion is asked for over checkered and spotted grounds: along stripes it cannot be seen.
    """
    rng = np.random.default_rng([SCENES.index(kind), 1])
    asked = []
    for index in range(count):
        ground = str(rng.choice(list(GROUNDS)))
        first, second = (str(name) for name in rng.choice(list(COLOURS), 2, replace=False))
        one, other = (str(name) for name in rng.choice(SHAPES, 2))
        on = f" on {with_article(ground + ' background')}"
        if kind == "pair":
            things = f"{with_article(f'{first} {one}')} and {with_article(f'{second} {other}')}"
            asked.append({"caption": things + on, "colours": f"{first} {second}", "shapes": f"{one} {other}"})
        elif kind == "camera":
            motion, pattern = list(CAMERA)[index % len(CAMERA)], str(rng.choice(["checkered", "spotted"]))
            asked.append({"caption": f"the camera {motion} over a {pattern} {ground} ground", "camera": motion})
        else:
            action = ACTIONS[index % len(ACTIONS)]
            asked.append({"caption": f"a person in {with_article(first)} shirt {action}{on}", "shirt": first})
            asked[-1]["action"] = action
        if kind != "camera":
            asked[-1]["ground"] = ground
    return asked


def examine_scenes(
    folder: Path,
    kind: str,
    count: int,
    *,
    params: RenderParams,
    num_frames: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """The share of `count` clips of a kind and `num_frames` frames that show each attribute asked for, in [0, 1].

    Seeds are 0, 1, 2, …
    """
    asked = scene_questions(kind, count)
    right: dict[str, list[float]] = {}
    captions = [question["caption"] for question in asked]
    clips = draw_captions(folder, captions, params=params, num_frames=num_frames, progress=progress)
    for question, frames in zip(asked, clips, strict=True):
        for name, share in grade(kind, question, frames).items():
            right.setdefault(name, []).append(share)
    return {name: float(np.mean(shares)) for name, shares in right.items()}


def grade(kind: str, asked: Asked, frames: np.ndarray) -> dict[str, float]:
    """How much of each attribute asked for is seen in frames uint8 (T, 64, 64, 3), in [0, 1]."""
    if kind == "camera":
        return {"camera": float(judge_camera(frames) == asked["camera"])}
    if kind == "figure":
        seen = judge_figure(frames)
        return {
            "shirt": float(seen.shirt == asked["shirt"]),
            "action": float(seen.action == asked["action"]),
            "ground": float(seen.background == asked["ground"]),
        }
    pair = judge_pair(frames)
    wanted = dict(zip(asked["colours"].split(), asked["shapes"].split(), strict=True))
    return {
        "colours": float(pair.shapes.keys() == wanted.keys()),
        "shapes": sum(pair.shapes.get(colour) == shape for colour, shape in wanted.items()) / 2,
        "ground": float(pair.background == asked["ground"]),
    }
