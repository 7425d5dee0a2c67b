"""The judge on true clips: it must read what was drawn, sharp or blurred, and see that an empty clip is empty."""

import cv2
import numpy as np
import pytest

from effivmt.errors import VideoError
from effivmt.pretrain.examinations.judge import judge, path_scores
from effivmt.world import motions
from effivmt.world.looks import COLOURS, GROUNDS, SHAPES, Ground, Look, random_ground, random_look
from effivmt.world.scenes import WorldClip, object_clip


def draw(index: int, *, ground_patterned: float = 0.0, motion: str | None = None, num_frames: int = 17) -> WorldClip:
    """A clip of a plain object in motion number `index` modulo 8, or along a path that wanders."""
    rng = np.random.default_rng([5, index])
    look, ground = random_look(rng, patterned=0.0), random_ground(rng, patterned=ground_patterned)
    name = motion or list(motions.NAMED)[index % len(motions.NAMED)]
    path = (
        motions.wander(rng, num_frames, look.radius)
        if name == "wander"
        else motions.named(name, rng, num_frames, look.radius)
    )
    return object_clip(look, ground, path, "", facts={"truth": (look.colour, look.shape, ground.colour, name)})


def blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


@pytest.mark.parametrize(
    ("count", "sigma", "patterned", "num_frames"), [(64, 0.0, 0.0, 17), (24, 1.2, 0.0, 33), (24, 0.8, 1.0, 17)]
)
def test_judge_reads_true_clips(count: int, sigma: float, patterned: float, num_frames: int) -> None:
    for index in range(count):
        clip = draw(index, ground_patterned=patterned, num_frames=num_frames)
        verdict = judge(blurred(clip.frames, sigma) if sigma else clip.frames)
        assert (verdict.colour, verdict.shape, verdict.background, verdict.motion) == clip.facts["truth"], index
        error = np.linalg.norm(verdict.path - clip.facts["motion"].centre, axis=1)
        assert error.max() < 1.0, index


def test_every_pair_of_colour_and_ground_is_told_apart() -> None:
    still = motions.Motion(np.full((1, 2), 30.0, np.float32), np.zeros(1, np.float32), np.ones(1, np.float32))
    for number, (colour, ground) in enumerate((c, g) for c in COLOURS for g in GROUNDS):
        shape = SHAPES[number % 4]
        verdict = judge(object_clip(Look(shape, colour, 9.0), Ground(ground), still, "").frames)
        assert (verdict.colour, verdict.shape, verdict.background) == (colour, shape, ground)


def test_paths_that_wander_have_no_name() -> None:
    named = [judge(draw(index, motion="wander").frames).motion for index in range(32)]
    assert named.count(None) >= 28


def test_a_clip_without_object_has_none() -> None:
    ground = np.full((5, 64, 64, 3), (18, 24, 84), np.uint8)
    verdict = judge(ground)
    assert (verdict.colour, verdict.shape, verdict.background, verdict.motion) == (None, None, "navy", None)
    assert np.isnan(verdict.path).all()
    seen = draw(0).frames
    half = judge(np.concatenate([seen[:9], np.broadcast_to(seen[0, 0, 0], (8, 64, 64, 3)).astype(np.uint8)]))
    assert np.isfinite(half.path[:9]).all() and np.isnan(half.path[9:]).all()
    assert half.motion is None


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(VideoError, match="resize"):
        judge(np.zeros((5, 32, 32, 3), np.uint8))


def test_path_scores_tell_form_from_place() -> None:
    path = motions.held_out("figure eight", np.random.default_rng(0), 33, 9.0).centre
    assert path_scores(path, path) == (pytest.approx(1.0), 0.0)
    shifted = path_scores(path + np.float32([6.4, 0.0]), path)
    assert shifted == (pytest.approx(1.0), pytest.approx(0.1, abs=1e-6))
    assert path_scores(64 - path, path)[0] == pytest.approx(-1.0)
    still = path_scores(np.full_like(path, 32.0), path)
    assert still[0] == 0.0 and still[1] > 0.2
    assert path_scores(np.full_like(path, np.nan), path) == still
    with pytest.raises(VideoError, match="same frames"):
        path_scores(path[:9], path)
