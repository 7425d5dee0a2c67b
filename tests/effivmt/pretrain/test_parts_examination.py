"""The scores of parts of a motion, and of motions together, are those of what is truly drawn."""

import numpy as np
import pytest

from effivmt.pretrain.examinations.parts import TOGETHER, PartClip, draw_parts, score_part, score_together
from effivmt.world.drawing import draw_ground, draw_object
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import SIZE, Motion

T = 33
PROMPT = "a view of a spotted gray ground with a red square"


@pytest.fixture(scope="module")
def parts() -> dict[str, PartClip]:
    return {part.name: part for part in draw_parts(T)}


def view(ground: np.ndarray, thing: np.ndarray) -> np.ndarray:
    """A red square along `thing` over a ground whose middle goes along `ground`, (T, 2) in pixels each."""
    poses = np.zeros((T, 4), np.float32)
    poses[:, :2] = SIZE / 2 - ground
    canvas, zero = draw_ground(Ground("gray", "spotted", 18.0, 0.55, (7, 2)), poses), np.zeros(T, np.float32)
    draw_object(canvas, Look("square", "red", 8.0), Motion(thing.astype(np.float32), zero, zero + 1))
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def test_the_camera_of_one_clip_and_the_object_of_another(parts) -> None:
    camera, thing = (parts[name] for name in TOGETHER[0])
    assert camera.of_camera == (True, False) and thing.of_camera == (False, False) and camera.caption != thing.caption
    both = view(camera.wanted, thing.wanted)
    assert min(score_together(camera, thing, PROMPT, both)) > 0.98
    still = np.repeat(np.array([[32.0, 32.0]]), T, 0)
    ground, seen = score_together(camera, thing, PROMPT, view(camera.wanted, still))
    assert ground > 0.98 and abs(seen) < 0.3
    ground, seen = score_together(camera, thing, PROMPT, view(still, thing.wanted))
    assert ground == 0 and seen > 0.98
    assert score_together(camera, thing, PROMPT, view(camera.wanted, still + 200))[1] == 0  # no object is drawn


def test_paths_of_the_joined_clips_do_not_correlate(parts) -> None:
    ground, thing = (parts[name].wanted for name in TOGETHER[0])
    moved = np.abs(np.corrcoef(ground[:, 0], thing.T))[0, 1:]
    assert ground[:, 1].std() == 0 and moved.max() < 0.85


def test_the_wanted_one_of_two_is_told_from_the_other(parts) -> None:
    camera = parts["camera"]
    assert min(score_part(camera, PROMPT, view(camera.wanted, camera.other))) > 0.98
    wanted, other = score_part(camera, PROMPT, view(camera.wanted, camera.other[::-1]))
    assert wanted > 0.98 and other < 0.5
