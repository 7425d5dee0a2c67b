"""The procedural world: deterministic, true to its captions, and silent about the benchmark's paths."""

from collections import Counter

import numpy as np
import pytest

from effivmt.world import motions
from effivmt.world.looks import COLOURS, GROUNDS, Ground, Look, rgb
from effivmt.world.scenes import KINDS, Mix, draw_clip, draw_still, object_clip, place_of


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bytes(kind: str) -> None:
    one, other = (draw_clip(3, 5, kinds={kind: 1.0}) for _ in range(2))
    assert one.caption == other.caption
    assert one.frames.dtype == np.uint8 and one.frames.shape == (33, 64, 64, 3)
    assert np.array_equal(one.frames, other.frames)
    assert not np.array_equal(one.frames, draw_clip(3, 6, kinds={kind: 1.0}).frames)


@pytest.mark.parametrize("num_frames", [5, 13, 81])
@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_of_any_length_shows_the_whole_scene(kind: str, num_frames: int) -> None:
    for index in range(4):
        usual, other = (draw_clip(3, index, kinds={kind: 1.0}, num_frames=count) for count in (33, num_frames))
        assert other.caption == usual.caption and other.frames.shape == (num_frames, 64, 64, 3)
        ends = [clip.frames[[0, -1]].astype(int) for clip in (usual, other)]
        assert np.abs(ends[0] - ends[1]).max() <= 1


def test_an_object_stands_where_its_path_says() -> None:
    motion = motions.held_out("figure eight", np.random.default_rng(0), 33, 9.0)
    clip = object_clip(Look("circle", "red", 9.0), Ground("navy"), motion, "")
    red = np.abs(clip.frames.astype(float) - rgb("red")).sum(-1) < 60
    for frame, centre in zip(red, motion.centre, strict=True):
        y, x = np.nonzero(frame)
        assert np.hypot(x.mean() + 0.5 - centre[0], y.mean() + 0.5 - centre[1]) < 0.5


def test_captions_name_what_is_seen() -> None:
    for index in range(60):
        clip = draw_clip(9, index, kinds={"object": 1.0}, num_frames=5)
        look, ground = clip.facts["look"], clip.facts["ground"]
        words = clip.caption.split(" on a ")[0].split()
        assert {word for word in words if word in COLOURS} <= {look.colour}
        assert {word for word in clip.caption.split() if word in GROUNDS} <= {ground.colour}
        phrase = clip.facts["phrase"]
        said = [name for name in motions.NAMED if name in clip.caption]
        assert not said or said[0] == phrase


def test_named_motions_are_drawn_by_their_weights() -> None:
    mix = Mix(motions={"bouncing": 1.0, "growing": 3.0, "moving up": 0.0})
    clips = [draw_clip(9, index, kinds={"object": 1.0}, num_frames=5, mix=mix) for index in range(200)]
    drawn = Counter(clip.facts["phrase"] for clip in clips)
    assert set(drawn) == {"bouncing", "growing", None}
    assert 80 < drawn[None] < 120 and 2.0 < drawn["growing"] / drawn["bouncing"] < 4.5


def test_paths_stay_in_the_frame() -> None:
    rng = np.random.default_rng(0)
    for family in motions.HELD_OUT:
        for radius in (8.0, 11.5):
            centre = motions.held_out(family, rng, 33, radius).centre
            assert centre.min() >= radius and centre.max() <= motions.SIZE - radius
    for _ in range(20):
        centre = motions.wander(rng, 33, 10.0).centre
        assert centre.min() >= 10.0 and centre.max() <= motions.SIZE - 10.0


@pytest.mark.parametrize("kind", KINDS)
def test_stills_are_single_frames_without_motion_words(kind: str) -> None:
    for index in range(20):
        still = draw_still(4, index, kinds={kind: 1.0})
        assert still.frames.shape == (1, 64, 64, 3) and np.array_equal(
            still.frames, draw_still(4, index, kinds={kind: 1.0}).frames
        )
        assert not any(name in still.caption for name in (*motions.NAMED, *motions.CAMERA))


def test_a_still_says_where_its_object_stands() -> None:
    said = 0
    for index in range(60):
        still = draw_still(4, index, kinds={"object": 1.0})
        place = place_of(still.facts["places"][0])
        if " at the " in still.caption:
            said += 1
            assert f" at {place}" in still.caption
    assert 20 < said < 60
    assert place_of(np.array([10.0, 50.0])) == "the bottom left" and place_of(np.array([32.0, 32.0])) == "the middle"


def test_a_route_names_both_ends_where_no_motion_is_said() -> None:
    routes, silent = 0, 0
    for index in range(80):
        clip = draw_clip(6, index, kinds={"object": 1.0})
        centre, named = clip.facts["motion"].centre, any(name in clip.caption for name in motions.NAMED)
        if " going " in clip.caption:
            routes += 1
            assert not named and f" from {place_of(centre[0])} to {place_of(centre[-1])}" in clip.caption
        silent += not named and " going " not in clip.caption
    assert routes > 10 and silent > 10
