"""Sharpness and flicker on drawn clips: what lowers and what raises them, and what leaves them alone."""

import cv2
import numpy as np
import pytest

from effivmt.errors import VideoError
from effivmt.evaluation.quality import edge_steepness, flicker, sharpness

T = 9
CLEAN = 0.006
"""Flicker that warping leaves of a clean clip that moves."""


@pytest.fixture(scope="module")
def clips(paint, texture, curve) -> dict[str, np.ndarray]:
    """Clean clips that move: an object on a plain and on a textured ground, and a camera's pan and zoom."""
    path, still = curve[:T], texture(np.zeros((T, 2)))
    pan = np.stack([1.3 * np.arange(T), 0.7 * np.arange(T)], 1)
    return {
        "plain": paint("square", path),
        "textured": paint("circle", path, colour=(245, 245, 245), ground=still),
        "pan": texture(pan),
        "zoom": texture(np.zeros((T, 2)), np.linspace(1, 1.5, T)),
    }


def resized(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC) for frame in frames])


def blurred(frames: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames])


def shaken(frames: np.ndarray, shape: tuple[int, ...], spread: float) -> np.ndarray:
    """With normal noise added, of a shape that is broadcast over frames."""
    noise = np.random.default_rng(5).normal(0, spread, shape)
    return np.clip(frames + noise, 0, 255).round().astype(np.uint8)


def test_a_clip_is_as_sharp_as_itself_and_blur_lowers_it(clips):
    for frames in clips.values():
        values = [sharpness(frames, video) for video in (frames, *(blurred(frames, sigma) for sigma in (0.5, 1, 2, 4)))]
        assert values[0] == 1.0
        assert (np.diff(values) < 0).all()
    sharp = clips["plain"]
    assert sharpness(sharp, blurred(sharp, 0.5)) < 0.95
    assert sharpness(sharp, blurred(sharp, 1)) < 0.75
    assert sharpness(sharp, blurred(sharp, 2)) < 0.55
    assert sharpness(blurred(sharp, 1), sharp) > 1.3


def test_an_edge_of_known_width_has_its_steepness():
    ramp = np.zeros((2, 64, 64, 3), np.uint8)
    ramp[:] = np.interp(np.arange(64), [30, 34], [40, 200]).round()[None, None, :, None]
    assert edge_steepness(ramp) == pytest.approx(1 / 4, abs=0.02)


def test_sharpness_depends_on_neither_contrast_nor_colours_nor_shape(paint, curve):
    reference = paint("square", curve)
    looks = (((50, 215, 225), (105, 66, 33)), ((245, 245, 245), (10, 10, 12)), ((150, 100, 100), (118, 118, 118)))
    for shape in ("square", "triangle"):
        for colour, ground in looks:
            assert sharpness(reference, paint(shape, curve, colour=colour, ground=ground)) == pytest.approx(1, abs=0.1)


def test_sharpness_compares_other_sizes(clips):
    sharp = clips["plain"]
    assert sharpness(sharp, resized(sharp, 128, 128)) == pytest.approx(1, abs=0.1)
    assert sharpness(resized(sharp, 192, 128), sharp) == pytest.approx(1, abs=0.1)
    soft = resized(blurred(sharp, 2), 128, 128)
    assert sharpness(sharp, soft) == pytest.approx(sharpness(sharp, blurred(sharp, 2)), abs=0.1)


def test_faint_noise_on_a_plain_ground_is_no_edge(clips):
    sharp = clips["plain"]
    assert sharpness(sharp, shaken(sharp, sharp.shape, 4)) == pytest.approx(1, abs=0.15)
    soft = blurred(sharp, 2)
    assert sharpness(sharp, shaken(soft, sharp.shape, 4)) < 0.7


def test_without_edges_sharpness_is_zero_and_against_none_not_measurable(clips):
    plain = np.full((T, 64, 64, 3), 90, np.uint8)
    assert sharpness(clips["plain"], plain) == 0.0
    assert sharpness(plain, plain) is None and sharpness(plain, clips["plain"]) is None


def test_a_clean_moving_clip_hardly_flickers_and_a_frozen_one_not_at_all(clips):
    for name, frames in clips.items():
        assert 0 <= flicker(frames) < CLEAN, name
        assert flicker(np.repeat(frames[:1], T, 0)) == 0.0


@pytest.mark.parametrize("spread", [4.0, 12.0])
def test_noise_and_brightness_of_each_frame_raise_flicker(clips, spread):
    for name, frames in clips.items():
        clean = flicker(frames)
        noisy = flicker(shaken(frames, frames.shape, spread))
        unsteady = flicker(shaken(frames, (T, 1, 1, 1), spread))
        assert noisy > clean + 0.5 * spread / 255, name
        assert unsteady > clean + 0.5 * spread / 255, name
        assert noisy < 0.1 and unsteady < 0.1


def test_an_object_that_changes_colour_on_a_still_ground_raises_flicker(paint):
    centre = np.full((T, 2), 32.0)
    colours = [(225, 35, 35), (225, 95, 35)]
    frames = np.concatenate([paint("square", centre[:1], colour=colours[t % 2]) for t in range(T)])
    change = np.abs(np.diff(frames.astype(float), axis=0)).mean() / 255
    assert flicker(frames) == pytest.approx(change, rel=0.2)


def test_jumps_at_latent_frames_raise_flicker(clips):
    """Brightness that jumps every 4 frames, as where a video autoencoder's latent frames meet."""
    steps = 12.0 * (np.arange(T) // 4 % 2)[:, None, None, None]
    for frames in clips.values():
        jumping = np.clip(frames + steps, 0, 255).astype(np.uint8)
        assert flicker(jumping) > flicker(frames) + 0.5 * 12 / 4 / 255


def test_flicker_hardly_depends_on_size(clips):
    unsteady = shaken(clips["textured"], (T, 1, 1, 1), 8)
    for size in ((128, 128), (192, 128)):
        assert flicker(resized(unsteady, *size)) == pytest.approx(flicker(unsteady), rel=0.15)


def test_a_video_without_any_motion_to_follow_has_a_value():
    noise = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3)).astype(np.uint8)
    plain = np.full((3, 32, 48, 3), 90, np.uint8)
    assert 0.1 < flicker(noise) < 1
    assert flicker(plain) == 0.0
    assert np.isfinite(edge_steepness(noise)) and edge_steepness(plain) == 0.0


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((5, 8, 8, 3)), "float64"),
        (np.zeros((5, 8, 8), np.uint8), "uint8 frames"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"\(0, 8, 8, 3\)"),
    ],
)
def test_other_arrays_are_refused(frames, message):
    good = np.zeros((5, 8, 8, 3), np.uint8)
    for judge in (flicker, edge_steepness, lambda it: sharpness(it, good), lambda it: sharpness(good, it)):
        with pytest.raises(VideoError, match=message):
            judge(frames)


def test_one_frame_has_no_flicker():
    with pytest.raises(VideoError, match="1 frames"):
        flicker(np.zeros((1, 8, 8, 3), np.uint8))
