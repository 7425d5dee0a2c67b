"""The wanted part of a clip's motion is kept and the rest is gone, on clips whose truth is known."""

import numpy as np
import pytest

from effivmt.errors import VideoError
from effivmt.method.masks import Part, latent_region, latent_weights, shown_mask, wanted_part
from effivmt.world.drawing import draw_ground, draw_object
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import SIZE, Motion

T = 33
t = np.linspace(0, 1, T)
UPPER = np.stack([32 + 18 * np.cos(2 * np.pi * t), 18 + 5 * t], 1)
LOWER = np.stack([14 + 36 * t, 46 + 4 * np.sin(4 * np.pi * t)], 1)
OVER = np.stack([32 + 12 * np.sin(2 * np.pi * t), 24 + 10 * t], 1)
PAN = np.stack([20 * np.sin(np.pi * t), -10 * t, 0 * t, 0 * t], 1).astype(np.float32)
STILL = np.zeros_like(PAN)
CHECKERED = Ground("brown", "checkered", 16.0, 1.6, (5, 9))
CHECKERED_STAR = Look("star", "red", 10.0, "checkered", "white")
STAR, CIRCLE = Look("star", "red", 9.0), Look("circle", "cyan", 8.0)


def draw(ground: Ground, poses: np.ndarray, *objects: tuple[Look, np.ndarray]) -> tuple[np.ndarray, ...]:
    """A clip, its ground alone, and the cover of each object, bool (T, H, W)."""
    canvas, zero = draw_ground(ground, poses), np.zeros(T, np.float32)
    alone = canvas.copy()
    covers = [
        draw_object(canvas, look, Motion(path.astype(np.float32), zero, zero + 1)) > 0.5 for look, path in objects
    ]
    return *(np.clip(frames + 0.5, 0, 255).astype(np.uint8) for frames in (canvas, alone)), *covers


def around(path: np.ndarray, side: float = 22) -> tuple[float, float, float, float]:
    return (path[0, 0] - side / 2) / SIZE, (path[0, 1] - side / 2) / SIZE, side / SIZE, side / SIZE


def share(part: np.ndarray, of: np.ndarray) -> float:
    return (part & of).sum() / of.sum()


def difference(frames: np.ndarray, other: np.ndarray) -> float:
    """Mean difference in gray levels."""
    return np.abs(frames.astype(float) - other).mean()


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, ...]:
    return draw(Ground("navy"), STILL, (STAR, UPPER), (CIRCLE, LOWER))


@pytest.fixture(scope="module")
def panned() -> tuple[np.ndarray, ...]:
    return draw(CHECKERED, PAN, (CHECKERED_STAR, OVER))


@pytest.mark.parametrize("motion_of", ["all", "object"])
@pytest.mark.parametrize("chosen", [0, 1])
def test_a_region_is_followed_and_the_other_object_is_gone(pair, chosen, motion_of):
    frames, ground, *covers = pair
    part = wanted_part(frames, motion_of, around((UPPER, LOWER)[chosen]))
    wanted, other = covers[chosen], covers[1 - chosen]
    assert share(part.wanted, wanted) > 0.97
    assert share(part.wanted, other) < 0.02 and share(part.hidden, other) > 0.97
    assert difference(part.frames[other & ~wanted], ground[other & ~wanted]) < 4
    assert (part.frames[part.wanted] == frames[part.wanted]).all()


def test_without_its_objects_the_camera_still_moves(panned):
    frames, ground, cover = panned
    part = wanted_part(frames, "camera", None)
    assert share(part.hidden, cover) > 0.99 and part.hidden.mean() < 0.2
    assert difference(part.frames, ground) < 2 < difference(frames, ground)


@pytest.mark.parametrize("region", [None, around(OVER)])
def test_an_object_moves_over_a_ground_that_has_come_to_rest(panned, region):
    frames, ground, cover = panned
    part = wanted_part(frames, "object", region)
    assert share(part.wanted, cover) > 0.97 and part.wanted.mean() < 2.6 * cover.mean()
    outside = ~part.wanted
    assert difference(part.frames[outside], np.broadcast_to(ground[:1], ground.shape)[outside]) < 6


def test_what_goes_with_the_ground_for_most_of_the_clip_leaves_no_ghost():
    resting = np.stack([np.where(t < 0.7, 20, 20 + 90 * (t - 0.7)), 0 * t + 30], 1)
    frames, ground, cover = draw(CHECKERED, STILL, (CHECKERED_STAR, resting))
    part = wanted_part(frames, "object", None)
    assert difference(part.frames[-1][cover[0]], ground[-1][cover[0]]) < 20
    assert share(part.wanted[-1:], cover[-1:]) > 0.97


def test_a_region_of_the_ground_itself_follows_it(panned):
    frames, _, _ = panned
    part = wanted_part(frames, "all", (0.45, 0.7, 0.4, 0.25))
    middles = [np.argwhere(mask).mean(0) for mask in part.wanted[[0, 3]]]
    assert middles[1][1] - middles[0][1] == pytest.approx(-PAN[3, 0], abs=1.5)
    with pytest.raises(VideoError, match="nothing in the region moves against its ground"):
        wanted_part(frames, "object", (0.45, 0.7, 0.4, 0.25))


def test_what_is_not_there_is_said_in_one_line(pair):
    frames, ground, *_ = pair
    still = draw(CHECKERED, STILL, (CIRCLE, UPPER))[0]
    for clip, motion_of, region, said in [
        (still, "camera", None, "no camera motion was found in the clip .the ground stands still"),
        (frames, "camera", None, "no camera motion was found in the clip .its ground has too few corners"),
        (ground, "object", None, "nothing in the clip moves against its ground"),
        (
            frames,
            "all",
            (0.02, 0.02, 0.2, 0.1),
            "nothing can be tracked in the region 0.02,0.02,0.2,0.1 of the first frame",
        ),
    ]:
        with pytest.raises(VideoError, match=said) as caught:
            wanted_part(clip, motion_of, region)
        assert "\n" not in str(caught.value)


def test_the_same_clip_gives_the_same_part(pair):
    first, second = (wanted_part(pair[0], "all", around(UPPER)) for _ in range(2))
    for name in Part.__dataclass_fields__:
        assert (getattr(first, name) == getattr(second, name)).all()


def test_a_latent_counts_unless_a_pixel_of_it_is_hidden():
    hidden = np.zeros((9, 16, 32), bool)
    hidden[0, 3, 3] = hidden[5, 8, 31] = hidden[8, 0, 8] = True
    weights = latent_weights(hidden, (3, 2, 4))
    expected = np.ones((3, 2, 4), np.float32)
    expected[0, 0, 0] = expected[2, 1, 3] = expected[2, 0, 1] = 0
    assert weights.dtype == np.float32 and (weights == expected).all()


def test_a_region_holds_the_thing_in_each_frame_of_a_latent_one():
    wanted = np.zeros((9, 64, 64), bool)
    for t in range(9):
        wanted[t, 28:36, 4 * t : 4 * t + 8] = True
    region = latent_region(wanted, (3, 8, 8))
    assert region.dtype == np.float32 and set(np.unique(region)) == {0, 1}
    assert region[:, 4].tolist() == [[1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 0, 0]]
    assert region[:, 0].max() == region[:, 7].max() == 0
    assert latent_region(wanted[:1], (1, 4, 4)).shape == (1, 4, 4)


def test_the_mask_is_shown_over_the_clip(pair):
    frames, _, cover, _ = pair
    shown = shown_mask(frames, cover)
    assert (shown[cover] == frames[cover]).all()
    assert shown[~cover].mean() < 0.6 * frames[~cover].mean() and shown.shape == frames.shape
