"""Background leakage: patterns in their place count, whatever their colours, and nothing else does."""

import cv2
import numpy as np
import pytest

from effivmt.benchmark.suite import suite
from effivmt.errors import VideoError
from effivmt.evaluation.background import background_leakage
from effivmt.world.drawing import draw_ground
from effivmt.world.looks import Ground

T = 17
PATTERNED = {"single-object-hook", "multiple-objects-hook-and-stairs"} | {
    f"human-motion-{action}" for action in ("lunging", "marching", "swaying")
}


def still(ground: Ground) -> np.ndarray:
    return np.clip(draw_ground(ground, np.zeros((T, 4), np.float32)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def striped(paint, curve) -> np.ndarray:
    """A square that moves over stripes."""
    return paint("square", curve[:T], ground=still(Ground("gray", "striped", 16.0, 1.6)))


@pytest.mark.slow
def test_the_suite_has_it_where_the_ground_is_patterned() -> None:
    for scene in suite():
        frames = scene.draw().frames
        leaked = background_leakage(frames, frames)
        patterned = scene.name in PATTERNED or scene.group == "camera"
        assert leaked == (pytest.approx(1.0) if patterned else None), scene.name


def test_under_a_moving_camera_it_is_measured_frame_by_frame() -> None:
    def filmed(colour: str, pattern: str, offset: tuple[float, float] = (0, 0), speed: float = 1.5) -> np.ndarray:
        poses = np.zeros((T, 4), np.float32)
        poses[:, :2] = speed * np.arange(T)[:, None]
        return np.clip(draw_ground(Ground(colour, pattern, 16.0, 1.6, offset), poses), 0, 255).astype(np.uint8)

    reference = filmed("brown", "checkered")
    assert background_leakage(reference, reference) == pytest.approx(1.0)
    assert background_leakage(reference, filmed("navy", "checkered")) > 0.75
    assert background_leakage(reference, np.repeat(filmed("navy", "checkered"), 3, 0)) > 0.6
    assert background_leakage(reference, filmed("navy", "plain")) == pytest.approx(0.0, abs=0.02)
    for other in (filmed("navy", "spotted", (3, 5)), filmed("navy", "checkered", speed=-1.0)):
        assert abs(background_leakage(reference, other)) < 0.3


def test_a_plain_ground_has_none_of_it_and_the_same_pattern_in_other_colours_all(striped, paint, zigzag) -> None:
    over = {"colour": (245, 220, 45), "radius": 8}
    plain = paint("circle", zigzag[:T], **over)
    assert background_leakage(striped, plain) == pytest.approx(0.0, abs=0.02)
    for colour in ("navy", "brown"):
        same = paint("circle", zigzag[:T], ground=still(Ground(colour, "striped", 16.0, 1.6)), **over)
        assert background_leakage(striped, same) > 0.75
    inverted = paint("circle", zigzag[:T], ground=255 - still(Ground("gray", "striped", 16.0, 0.55)), **over)
    assert background_leakage(striped, inverted) > 0.5


def test_it_rises_with_the_contrast_of_what_leaks(striped) -> None:
    ground = still(Ground("gray", "striped", 16.0, 1.6)).astype(float)
    leaks = [
        background_leakage(striped, (118 + share * (ground - 118)).round().astype(np.uint8))
        for share in (0, 0.25, 0.5, 1)
    ]
    assert leaks[0] == 0.0 and (np.diff(leaks) > 0.15).all() and leaks[-1] > 0.95


def test_another_pattern_counts_as_far_as_its_edges_lie_and_point_alike(striped) -> None:
    spotted, checkered = (still(Ground("gray", pattern, 16.0, 1.6)) for pattern in ("spotted", "checkered"))
    turned = still(Ground("gray", "striped", 16.0, 1.6)).transpose(0, 2, 1, 3)
    assert abs(background_leakage(striped, spotted)) < 0.3
    assert 0.3 < background_leakage(striped, checkered) < 0.7  # whose cells have every other edge of the stripes
    assert background_leakage(striped, turned) < 0


def test_the_moving_object_does_not_count(striped, paint, curve, zigzag) -> None:
    ground = still(Ground("gray", "striped", 16.0, 1.6))
    for path in (curve[:T], zigzag[:T]):
        assert background_leakage(striped, paint("square", path, ground=ground)) > 0.9
        assert background_leakage(striped, paint("square", path)) == pytest.approx(0.0, abs=0.02)


def test_a_plain_ground_has_nothing_to_leak_nor_has_a_thing_that_rests(paint, texture, curve) -> None:
    rests = paint("square", curve[:T], ground=paint("circle", np.full((T, 2), 40), radius=16, colour=(245, 220, 45)))
    for reference in (paint("square", curve[:T]), rests):
        assert background_leakage(reference, texture(np.zeros((T, 2)))) is None


def test_other_sizes_and_lengths_compare(striped) -> None:
    large = np.stack([cv2.resize(frame, (160, 128), interpolation=cv2.INTER_CUBIC) for frame in striped[::2]])
    assert background_leakage(striped, large) > 0.9
    assert background_leakage(large, striped) > 0.9
    assert background_leakage(striped, np.repeat(striped, 9, 0)) > 0.95


def test_frames_of_another_kind_are_refused(striped) -> None:
    for wrong in (striped[0], striped.astype(np.float32), striped[:0]):
        with pytest.raises(VideoError, match="give uint8 frames"):
            background_leakage(striped, wrong)
