"""The suite's promises (classes, unsaid looks, prompts, truth), and the metrics' on clips whose motion is known."""

import re
from collections import Counter

import numpy as np
import pytest

from effivmt.benchmark.paths import OBJECTS
from effivmt.benchmark.scene import CLASSES, NUM_FRAMES, DrawnClip
from effivmt.benchmark.suite import quick, suite
from effivmt.benchmark.tuning import tuning_scenes
from effivmt.evaluation.motion import MotionScores, compare_motion, compared
from effivmt.evaluation.tracks import track
from effivmt.world.looks import GROUND_PATTERNS, OBJECT_PATTERNS, names_held_out
from effivmt.world.motions import HELD_OUT, NAMED, SIZE

SCENES = {scene.name: scene for scene in suite()}
TUNING = {scene.name: scene for scene in tuning_scenes()}
QUICK = [name for name, scene in SCENES.items() if scene.quick]
PATTERNS = {*OBJECT_PATTERNS, *GROUND_PATTERNS} - {"plain"}


def test_classes_and_the_quick_subset():
    assert len(SCENES) == 24 and Counter(scene.group for scene in SCENES.values()) == dict.fromkeys(CLASSES, 6)
    assert Counter(scene.group for scene in SCENES.values() if scene.unsaid) == dict.fromkeys(CLASSES, 3)
    few = quick(list(SCENES.values()))
    assert Counter(scene.group for scene in few) == dict.fromkeys(CLASSES, 2)
    assert Counter((scene.group, scene.unsaid) for scene in few).most_common()[0][1] == 1
    assert [scene.group for scene in few[::2]] == list(CLASSES)
    assert [scene.unsaid for scene in few[::2]] == [False, True, False, True]


def test_prompts_are_three_and_name_nothing_of_what_moves_in_the_caption():
    for scene in (SCENES | TUNING).values():
        assert len(set(scene.prompts)) == 3
        shown = set(re.split(" on | and | in ", scene.caption.removeprefix("a view of "))) - {"a person"}
        for prompt in scene.prompts:
            shared = shown & set(re.split(" on | and | in ", prompt))
            assert all(phrase.endswith("background") for phrase in shared), (scene.name, shared)
        assert not any(names_held_out(text) for text in (scene.caption, *scene.prompts))
        assert not any(phrase in text for text in (scene.caption, *scene.prompts) for phrase in NAMED)


def test_families_are_the_benchmarks_own():
    assert not OBJECTS.keys() & HELD_OUT.keys()


def test_tuning_clips_are_one_of_each_class_and_none_of_the_suite():
    assert [scene.group for scene in TUNING.values()] == list(CLASSES)
    assert sum(scene.unsaid for scene in TUNING.values()) == 2
    texts = [{text for scene in part.values() for text in (scene.caption, *scene.prompts)} for part in (SCENES, TUNING)]
    assert not SCENES.keys() & TUNING.keys() and not texts[0] & texts[1]


@pytest.mark.parametrize("name", [*SCENES, *TUNING])
def test_clips_are_whole(name):
    scene = (SCENES | TUNING)[name]
    drawn = scene.draw()
    assert drawn.frames.shape == (NUM_FRAMES, SIZE, SIZE, 3) and drawn.frames.dtype == np.uint8
    assert drawn.mask.shape == drawn.frames.shape[:3] and drawn.mask.any((1, 2)).all()
    assert drawn.tracks.shape[1:] == (NUM_FRAMES, 2) and drawn.visible.mean() > 0.4
    moved = np.linalg.norm(np.diff(drawn.tracks, axis=1), axis=-1)
    assert moved.mean(0).max() > 9.6 / (NUM_FRAMES - 1) and moved.max() < 16  # something moves, nothing jumps
    assert np.array_equal(drawn.frames, scene.draw().frames)
    if scene.unsaid:
        assert not PATTERNS & set(scene.caption.split())


def moved_as_truth(drawn: DrawnClip, point: np.ndarray, born: int, group: str) -> np.ndarray:
    """Where a point (x, y) of frame `born` truly is in every frame (T, 2): by the camera, else as the nearest track."""
    if group != "camera":
        near = np.linalg.norm(drawn.tracks[:, born] - point, axis=-1).argmin()
        return drawn.tracks[near] + point - drawn.tracks[near, born]
    homogeneous = np.column_stack([drawn.tracks[:, born], np.ones(len(drawn.tracks))])
    return np.stack([[*point, 1] @ np.linalg.lstsq(homogeneous, later)[0] for later in drawn.tracks.transpose(1, 0, 2)])


@pytest.mark.parametrize("name", SCENES)
def test_the_tracker_finds_the_true_tracks(name):
    """The median error of tracked points on what moves is at most one pixel."""
    scene = SCENES[name]
    drawn = scene.draw()
    at = compared(np.arange(NUM_FRAMES))
    drawn = DrawnClip(drawn.frames[at], drawn.tracks[:, at], drawn.visible[:, at], drawn.mask[at])
    found = track(drawn.frames)
    errors = []
    for points, seen in zip(found.points + 0.5, found.visible, strict=True):
        born = int(seen.argmax())
        x, y = np.clip(points[born].astype(int), 0, SIZE - 1)
        if drawn.mask[born, y, x]:
            true = moved_as_truth(drawn, points[born], born, scene.group)
            errors += list(np.linalg.norm(points - true, axis=-1)[seen])
    assert len(errors) > 30 and np.median(errors) <= 1.0, np.median(errors)


def fidelities(scores: MotionScores) -> tuple[float, float, float]:
    return scores.motion_fidelity, scores.two_sided_motion_fidelity, scores.foreground_motion_fidelity


@pytest.mark.parametrize("name", QUICK)
def test_a_clip_is_like_itself_and_unlike_another_and_a_still(name):
    """Only the foreground tells a still of the clip apart where the ground has texture."""
    frames = SCENES[name].draw().frames
    same = compare_motion(frames, frames)
    assert min(fidelities(same)) >= 0.99 and same.trajectory_error < 1e-6
    unrelated = SCENES[QUICK[(QUICK.index(name) + 3) % len(QUICK)]].draw().frames
    for other in (compare_motion(frames, unrelated), compare_motion(frames, np.repeat(frames[:1], NUM_FRAMES, 0))):
        assert other.foreground_motion_fidelity < 0.75 and other.trajectory_error > 0.075
    assert other.motion_amount == 0.0 < same.motion_amount


@pytest.mark.parametrize("name", [name for name in QUICK if "object" in name])
def test_a_clip_is_unlike_its_reverse_and_its_mirror_image(name):
    frames = SCENES[name].draw().frames
    for other in (frames[::-1], np.ascontiguousarray(frames[:, :, ::-1])):
        scores = compare_motion(frames, other)
        assert max(fidelities(scores)) < 0.8 and scores.trajectory_error > 0.1


def test_objects_seldom_hide_each_other():
    for scene in SCENES.values():
        if scene.group == "multiple objects":
            first, second = scene.draw().tracks[[0, 9]]
            assert (np.linalg.norm(first - second, axis=-1) < 17).mean() < 0.3, scene.name
