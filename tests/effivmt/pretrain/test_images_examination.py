"""The images of the examination are what they are said to be, and its scores tell a kept image from another."""

import numpy as np

from effivmt.pretrain.examinations.images import draw_pictures, score, score_true_copy
from effivmt.pretrain.examinations.judge import judge
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import held_out
from effivmt.world.scenes import object_clip


def test_pictures_show_what_their_captions_say():
    pictures = draw_pictures(4)
    again = draw_pictures(4)
    for picture, same in zip(pictures, again, strict=True):
        seen = judge(picture.image[None])
        assert picture.caption.split()[1:3] == [seen.colour, seen.shape] and np.array_equal(picture.image, same.image)
    moved = pictures[0].at(np.array([20.0, 44.0]))
    assert np.abs(judge(moved.image[None]).path[0] - (20, 44)).max() < 1.5
    assert moved.caption == pictures[0].caption


def test_a_video_is_scored_against_its_image_and_its_reference():
    motion = held_out("zigzag", np.random.default_rng(0), 17, 10.0)
    frames = object_clip(Look("square", "red", 10.0), Ground("navy"), motion, "").frames
    (picture,) = draw_pictures(1)
    path = judge(frames).path
    kept = score(np.concatenate([picture.image[None], frames[1:]]), picture, path)
    assert kept.first > 80 and kept.path > 0.9
    near, far = (picture.at(path[0] + shift) for shift in (0, 40))
    assert score_true_copy(near, path) > 0.99 > 0.8 > score_true_copy(far, path)
    other = score(frames, picture, -path)
    assert other.first < 30 and other.path < -0.9 and not (other.colour and other.shape)
