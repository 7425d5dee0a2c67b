"""The judge of pairs, cameras and figures reads true clips right, and wrong ones as wrong."""

import numpy as np
import pytest

from effivmt.pretrain.examinations.scene_judge import judge_camera, judge_figure, judge_pair
from effivmt.pretrain.examinations.scenes import SCENES, grade, scene_questions
from effivmt.world.scenes import draw_clip

WORLD = 9100


def test_pairs_are_read() -> None:
    colours, shapes = [], []
    for index in range(60):
        facts = (clip := draw_clip(WORLD, index, kinds={"pair": 1.0})).facts
        first, second = facts["looks"]
        if first.colour != second.colour and {first.pattern, second.pattern, facts["ground"].pattern} == {"plain"}:
            seen = judge_pair(clip.frames)
            assert seen.background == facts["ground"].colour
            colours.append(seen.shapes.keys() == {first.colour, second.colour})
            shapes += [seen.shapes.get(look.colour) == look.shape for look in (first, second)]
    assert len(colours) >= 20 and np.mean(colours) >= 0.98 and np.mean(shapes) >= 0.9


def test_cameras_are_read_and_a_still_one_is_none() -> None:
    right = []
    for index in range(40):
        facts = (clip := draw_clip(WORLD, index, kinds={"camera": 1.0})).facts
        if "look" not in facts and facts["ground"].pattern != "striped":
            right.append(judge_camera(clip.frames) == facts["camera"])
            assert judge_camera(np.repeat(clip.frames[:1], 33, 0)) is None
            assert judge_camera(clip.frames[::-1]) != facts["camera"] or facts["camera"] == "rotates"
    assert len(right) >= 8 and np.mean(right) >= 0.98


def test_figures_are_read_and_an_empty_ground_is_none() -> None:
    shirts, actions = [], []
    for index in range(40):
        facts = (clip := draw_clip(WORLD, index, kinds={"figure": 1.0})).facts
        seen = judge_figure(clip.frames)
        shirts.append(seen.shirt == facts["shirt"])
        actions.append(seen.action == facts["action"])
    assert np.mean(shirts) >= 0.98 and np.mean(actions) >= 0.95
    empty = np.full((33, 64, 64, 3), 118, np.uint8)
    assert judge_figure(empty).shirt is None


@pytest.mark.parametrize("kind", SCENES)
def test_questions_are_the_same_every_time_and_noise_fails_them(kind: str) -> None:
    asked = scene_questions(kind, 8)
    assert asked == scene_questions(kind, 8) and len({question["caption"] for question in asked}) >= 7
    noise = np.random.default_rng(0).integers(0, 255, (33, 64, 64, 3), np.uint8)
    grades = [grade(kind, question, noise) for question in asked]
    assert np.mean([value for given in grades for name, value in given.items() if name != "ground"]) < 0.4
