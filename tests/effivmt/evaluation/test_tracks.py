"""Tracks against the true motion of drawn clips."""

import numpy as np
import pytest

from effivmt.errors import VideoError
from effivmt.evaluation.tracks import Tracks, track

T = 33


def errors(tracks: Tracks, centre: np.ndarray, angle: np.ndarray | float = 0.0, scale: np.ndarray | float = 1.0):
    """Mean distance in pixels (N,) of each track from the path of the body point that it sat on at mid-life."""
    angle, scale = np.broadcast_to(angle, len(centre)), np.broadcast_to(scale, len(centre))
    result = []
    for points, visible in zip(tracks.points, tracks.visible, strict=True):
        seen = np.flatnonzero(visible)
        start = seen[len(seen) // 2]
        x, y = (points[start] - centre[start]) / scale[start]
        turn = angle - angle[start]
        body = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
        true = centre + scale[:, None] * body
        result.append(np.linalg.norm(true - points, axis=1)[visible].mean())
    return np.array(result)


@pytest.mark.parametrize("shape", ["circle", "square", "triangle"])
def test_a_plain_shape_on_a_curve_is_followed_to_half_a_pixel(paint, curve, shape):
    tracks = track(paint(shape, curve, radius=10))
    error = errors(tracks, curve)
    assert len(error) >= 8
    assert np.median(error) <= 0.5
    assert error.max() <= 2.0
    assert tracks.visible.mean() >= 0.9


def test_fast_motion_of_four_pixels_a_frame_is_followed(paint):
    t = np.arange(T)
    path = np.stack([12 + np.abs((4 * t) % 80 - 40), np.full(T, 30.0)], 1)
    error = errors(track(paint("circle", path)), path)
    assert len(error) >= 8
    assert np.median(error) <= 1.0


@pytest.mark.parametrize("shape", ["square", "triangle"])
def test_a_turning_shape_is_followed_to_a_pixel(paint, shape):
    centre, angle = np.full((T, 2), 31.5), np.linspace(0, 1.5, T)
    error = errors(track(paint(shape, centre, angle=angle, radius=13)), centre, angle)
    assert len(error) >= 6
    assert np.median(error) <= 1.0


def test_a_growing_shape_is_followed_to_a_pixel(paint):
    centre, scale = np.full((T, 2), 31.5), np.linspace(0.8, 1.8, T)
    error = errors(track(paint("square", centre, scale=scale)), centre, scale=scale)
    assert len(error) >= 6
    assert np.median(error) <= 1.0


def test_a_panned_and_a_zoomed_ground_are_followed(texture):
    t = np.arange(T)
    shift = np.stack([1.5 * t, 6 * np.sin(t / 6)], 1)
    panned = track(texture(shift))
    assert len(panned.points) >= 50
    assert np.median(errors(panned, -shift)) <= 0.25

    zoom = np.linspace(1.0, 1.6, T)
    zoomed = track(texture(np.zeros((T, 2)), zoom))
    assert len(zoomed.points) >= 50
    assert np.median(errors(zoomed, np.full((T, 2), 31.5), scale=zoom)) <= 0.5


def test_a_large_video_is_followed_to_a_pixel(texture):
    shift = np.stack([7 * np.arange(6), 3 * np.arange(6)], 1)
    ground = texture(np.zeros((1, 2)), size=(500, 870), wave=90)[0]
    tracks = track(np.stack([ground[y : y + 480, x : x + 832] for x, y in shift]))
    assert len(tracks.points) >= 50
    assert np.median(errors(tracks, -shift)) <= 0.5


def test_colours_of_one_luminance_are_followed(paint, curve):
    colour, ground = (200, 60, 60), (102, 102, 102)
    luminance = np.array([0.299, 0.587, 0.114])
    assert abs(luminance @ colour - luminance @ ground) < 1
    error = errors(track(paint("circle", curve, colour=colour, ground=ground)), curve)
    assert len(error) >= 8
    assert np.median(error) <= 0.5


def test_two_hues_are_both_followed(paint):
    t = np.arange(T)
    left, right = np.stack([14 + 0 * t, 14 + t], 1), np.stack([47 + 0 * t, 48 - t], 1)
    frames = paint("square", left, radius=9, colour=(220, 60, 60))
    frames = paint("circle", right, radius=9, colour=(60, 120, 230), ground=frames)
    tracks = track(frames)
    on_left = tracks.points[:, 0, 0] < 31
    assert on_left.sum() >= 5 and (~on_left).sum() >= 5
    for side, path in ((on_left, left), (~on_left, right)):
        assert np.median(errors(Tracks(tracks.points[side], tracks.visible[side]), path)) <= 0.5


def test_exchanged_colour_channels_give_the_same_tracks(paint, curve):
    frames = paint("triangle", curve)
    first, second = track(frames), track(np.ascontiguousarray(frames[..., [2, 0, 1]]))
    assert first.points.shape == second.points.shape
    gap = np.abs(first.points - second.points)
    assert np.median(gap) < 0.01
    assert gap.max() < 1.0


def test_what_cannot_be_followed_gets_no_points():
    rng = np.random.default_rng(0)
    plain = np.full((T, 64, 64, 3), 90, np.uint8)
    flicker = rng.integers(60, 120, (T, 64, 64, 3)).astype(np.uint8)
    edge = plain.copy()
    for t in range(T):
        edge[t, :, 10 + t :] = 200
    for frames in (plain, flicker, edge):
        tracks = track(frames)
        assert tracks.points.shape == (0, T, 2)
        assert tracks.visible.shape == (0, T)


def test_an_object_that_enters_late_and_one_that_leaves_are_followed_while_seen(paint):
    t = np.arange(T)
    entering = np.stack([-50 + 2.8 * t, np.full(T, 31.0)], 1)
    for path, outside, inside in ((entering, slice(0, 12), slice(26, T)), (entering[::-1], slice(21, T), slice(0, 7))):
        tracks = track(paint("square", path))
        assert len(tracks.points) >= 4
        assert np.median(errors(tracks, path)) <= 1.0
        assert not tracks.visible[:, outside].any()
        assert tracks.visible[:, inside].mean() >= 0.7


def test_visibility_is_one_span_and_points_rest_outside_it(paint, texture, curve):
    ground = texture(np.zeros((T, 2)))
    tracks = track(paint("circle", curve, colour=(250, 250, 250), ground=ground))
    assert not tracks.visible.all()
    for points, visible in zip(tracks.points, tracks.visible, strict=True):
        seen = np.flatnonzero(visible)
        assert visible[seen[0] : seen[-1] + 1].all()
        assert (points[: seen[0]] == points[seen[0]]).all()
        assert (points[seen[-1] :] == points[seen[-1]]).all()


def test_points_stay_in_the_frame_and_a_finer_grid_gives_more(texture):
    frames = texture(np.stack([2.0 * np.arange(9), np.zeros(9)], 1), size=(48, 80))
    coarse, fine = track(frames, grid=4), track(frames, grid=12)
    assert coarse.points.dtype == np.float32
    assert len(fine.points) > 2 * len(coarse.points)
    assert (fine.points >= -0.5).all() and (fine.points <= [79.5, 47.5]).all()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((5, 8, 8, 3), np.float32), "float32 frames"),
        (np.zeros((5, 8, 8), np.uint8), r"\(5, 8, 8\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), "1 frames"),
    ],
)
def test_other_arrays_are_refused(frames, message):
    with pytest.raises(VideoError, match=message):
        track(frames)
