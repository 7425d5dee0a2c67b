"""The suite's promises: classes, unsaid looks, prompts, true tracks, and distance from what training draws."""

from collections import Counter

import numpy as np
import pytest

from effivmt.benchmark.paths import OBJECTS
from effivmt.benchmark.suite import CLASSES, NUM_FRAMES, Drawn, suite
from effivmt.evaluation.tracks import track
from effivmt.world.looks import GROUND_PATTERNS, OBJECT_PATTERNS
from effivmt.world.motions import HELD_OUT, NAMED, SIZE

SCENES = {scene.name: scene for scene in suite()}
PATTERNS = {*OBJECT_PATTERNS, *GROUND_PATTERNS} - {"plain"}


def test_classes_and_the_quick_subset():
    assert len(SCENES) == 24 and Counter(scene.group for scene in SCENES.values()) == dict.fromkeys(CLASSES, 6)
    assert Counter(scene.group for scene in SCENES.values() if scene.unsaid) == dict.fromkeys(CLASSES, 3)
    quick = [scene for scene in SCENES.values() if scene.quick]
    assert Counter(scene.group for scene in quick) == dict.fromkeys(CLASSES, 2)
    assert Counter((scene.group, scene.unsaid) for scene in quick).most_common()[0][1] == 1


def test_prompts_are_three_and_none_is_the_caption():
    for scene in SCENES.values():
        assert len(set(scene.prompts)) == 3 and scene.caption not in scene.prompts
        assert not any(phrase in text for text in (scene.caption, *scene.prompts) for phrase in NAMED)


def test_families_are_the_benchmarks_own():
    assert not OBJECTS.keys() & HELD_OUT.keys()


@pytest.mark.parametrize("name", SCENES)
def test_clips_are_whole(name):
    scene = SCENES[name]
    drawn = scene.draw()
    assert drawn.frames.shape == (NUM_FRAMES, SIZE, SIZE, 3) and drawn.frames.dtype == np.uint8
    assert drawn.mask.shape == drawn.frames.shape[:3] and drawn.mask.any((1, 2)).all()
    assert drawn.tracks.shape[1:] == (NUM_FRAMES, 2) and drawn.visible.mean() > 0.4
    moved = np.linalg.norm(np.diff(drawn.tracks, axis=1), axis=-1)
    assert moved.mean(0).max() > 0.3 and moved.max() < 16  # something moves, nothing jumps
    assert np.array_equal(drawn.frames, scene.draw().frames)
    if scene.unsaid:
        assert not PATTERNS & set(scene.caption.split())


def moved_as_truth(drawn: Drawn, point: np.ndarray, born: int, group: str) -> np.ndarray:
    """Where a point (x, y) of frame `born` truly is in every frame (T, 2): by the camera, else as the nearest track."""
    if group != "camera":
        near = np.linalg.norm(drawn.tracks[:, born] - point, axis=-1).argmin()
        return drawn.tracks[near] + point - drawn.tracks[near, born]
    homogeneous = np.column_stack([drawn.tracks[:, born], np.ones(len(drawn.tracks))])
    return np.stack([[*point, 1] @ np.linalg.lstsq(homogeneous, later)[0] for later in drawn.tracks.transpose(1, 0, 2)])


@pytest.mark.parametrize("name", [name for name, scene in SCENES.items() if scene.quick])
def test_the_tracker_finds_the_true_tracks(name):
    """The median error of tracked points on what moves is at most one pixel."""
    scene = SCENES[name]
    drawn = scene.draw()
    found = track(drawn.frames)
    errors = []
    for points, seen in zip(found.points + 0.5, found.visible, strict=True):
        born = int(seen.argmax())
        x, y = np.clip(points[born].astype(int), 0, SIZE - 1)
        if drawn.mask[born, y, x]:
            true = moved_as_truth(drawn, points[born], born, scene.group)
            errors += list(np.linalg.norm(points - true, axis=-1)[seen])
    assert len(errors) > 30 and np.median(errors) <= 1.0, np.median(errors)
