"""Images that training never drew, and how a video that begins with one keeps it and follows a motion."""

from dataclasses import dataclass, replace

import numpy as np

from effivmt.pipeline.reconstruction import psnr
from effivmt.pretrain.examinations.captions import WORLD
from effivmt.pretrain.examinations.judge import judge, path_scores
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import Motion
from effivmt.world.scenes import draw_clip, object_clip, with_article


@dataclass(frozen=True)
class Picture:
    """An image uint8 (64, 64, 3) of one plain object, and what it shows."""

    image: np.ndarray
    look: Look
    ground: Ground

    @property
    def caption(self) -> str:
        """What says all that is to be seen."""
        thing = with_article(f"{self.look.colour} {self.look.shape}")
        return f"{thing} on {with_article(self.ground.colour)} background"

    def at(self, centre: np.ndarray) -> "Picture":
        """The same object on the same ground with its centre at (x, y), in pixels."""
        return replace(self, image=_drawn(self.look, self.ground, centre[None])[0])


@dataclass(frozen=True)
class ImageScores:
    """How a video keeps the image that it begins with, and follows a motion.

    first: PSNR of its first frame against the image, dB; colour and shape: whether the judge reads the image's own;
    path: correlation with the reference's path, in [-1, 1].
    """

    first: float
    colour: bool
    shape: bool
    path: float


def draw_pictures(count: int) -> list[Picture]:
    """First frames of `count` clips of a data set that training never draws: a plain object anywhere on a plain ground.

    The judge reads colour and shape of each of them right.
    """
    pictures: list[Picture] = []
    index = 0
    while len(pictures) < count:
        clip = draw_clip(WORLD, index, kinds={"object": 1.0}, num_frames=5)
        look, ground = clip.facts["look"], clip.facts["ground"]
        image, index = clip.frames[0], index + 1
        if look.pattern == ground.pattern == "plain":
            seen = judge(image[None])
            if (seen.colour, seen.shape) == (look.colour, look.shape):
                pictures.append(Picture(image, look, ground))
    return pictures


def score_true_copy(picture: Picture, true_path: np.ndarray) -> float:
    """The `path` of a true copy: the picture's object, displaced as the reference's is on its path (T, 2) in pixels.

    It leaves the frame where the way leads out of it.
    """
    displaced = judge(picture.image[None]).path + true_path - true_path[0]
    return path_scores(judge(_drawn(picture.look, picture.ground, displaced)).path, true_path)[0]


def _drawn(look: Look, ground: Ground, path: np.ndarray) -> np.ndarray:
    """Frames uint8 (T, 64, 64, 3) of an object whose centre takes a path (T, 2), in pixels."""
    still = np.zeros(len(path), np.float32)
    return object_clip(look, ground, Motion(np.asarray(path, np.float32), still, still + 1), "").frames


def score(frames: np.ndarray, picture: Picture, true_path: np.ndarray) -> ImageScores:
    """Judges frames uint8 (T, 64, 64, 3) that begin with a picture against the reference's path (T, 2)."""
    seen = judge(frames)
    return ImageScores(
        psnr(picture.image[None], frames[:1]),
        seen.colour == picture.look.colour,
        seen.shape == picture.look.shape,
        path_scores(seen.path, true_path)[0],
    )
