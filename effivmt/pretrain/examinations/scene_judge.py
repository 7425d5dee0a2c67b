"""Reads from pixels what clips of two objects, a moving camera or a figure show; like `judge`, nothing learned."""

from dataclasses import dataclass

import cv2
import numpy as np

from effivmt.evaluation.tracks import track
from effivmt.pretrain.examinations.judge import centres, ground_of, largest, shape_of
from effivmt.world.figure import SKIN, TROUSERS
from effivmt.world.looks import COLOURS, rgb
from effivmt.world.motions import SIZE

NEAR = 60.0
"""A pixel has a colour of the world if it is at most this far from it (RGB distance)."""
LIMBS = 0.08
"""Skin and trousers each cover at least this share of a person."""


@dataclass(frozen=True)
class Pair:
    """The ground's name and the shape of each of the two most widespread colours, by colour."""

    background: str
    shapes: dict[str, str | None]


@dataclass(frozen=True)
class Figure:
    """Names of the ground, the shirt's colour and the action; None where nothing of the kind is seen."""

    background: str
    shirt: str | None
    action: str | None


def judge_pair(frames: np.ndarray) -> Pair:
    """Judges two objects of different colours in frames uint8 (T, 64, 64, 3)."""
    pixels = frames.astype(np.float32)
    background, off_ground = ground_of(pixels)
    names = list(COLOURS)
    distances = np.linalg.norm(pixels[..., None, :] - np.stack([rgb(name) for name in names]), axis=-1)
    nearest = np.where((distances.min(-1) < NEAR) & (off_ground > NEAR / 2), distances.argmin(-1), -1)
    areas = np.array([(nearest == index).sum() for index in range(len(names))])
    covers = {}
    for index in areas.argsort()[::-1][:2]:
        if areas[index] > 4 * len(frames):
            covers[names[index]] = largest(np.clip(1.5 - distances[..., index] / NEAR, 0, 1) * (off_ground > NEAR / 2))
    apart = _apart(*covers.values()) if len(covers) == 2 else np.ones(len(frames), bool)
    shapes = {name: shape_of(cover[apart] if apart.any() else cover) for name, cover in covers.items()}
    return Pair(background, shapes)


def object_path(frames: np.ndarray, colour: str) -> np.ndarray:
    """The path (T, 2) in pixels of the largest thing of a colour in frames uint8 (T, 64, 64, 3), over any ground.

    NaN where there is none.
    """
    pixels = frames.astype(np.float32)
    near = np.clip(1.5 - np.linalg.norm(pixels - rgb(colour), axis=-1) / NEAR, 0, 1)
    cover = largest(near * (ground_of(pixels)[1] > NEAR / 2))
    return centres(cover, cover.sum((1, 2)))


def judge_camera(frames: np.ndarray) -> str | None:
    """The camera's motion over a ground that fills frames uint8 (T, 64, 64, 3): one of `motions.CAMERA`, or None.

    Tracked points are fitted, frame by frame, by a turn, a zoom and a shift; the largest of the whole clip's, each as a
    share of what the world's cameras do, names the motion.
    """
    tracks = track(frames)
    turn = zoom = 0.0
    shift = np.zeros(2)
    for t in range(len(frames) - 1):
        seen = tracks.visible[:, t] & tracks.visible[:, t + 1]
        if seen.sum() < 3:
            continue
        centred = tracks.points[seen, t : t + 2] - (SIZE - 1) / 2
        before, after = (np.ascontiguousarray(centred[:, side]) for side in (0, 1))
        fit, _ = cv2.estimateAffinePartial2D(before, after, ransacReprojThreshold=0.5)
        if fit is not None:
            turn += np.arctan2(fit[1, 0], fit[0, 0])
            zoom += np.log(np.hypot(fit[0, 0], fit[1, 0]))
            shift += fit[:, 2]
    amounts = {
        "pans right": -shift[0] / 44, "pans left": shift[0] / 44, "pans down": -shift[1] / 44, "pans up": shift[1] / 44,
        "zooms in": zoom / 0.8, "zooms out": -zoom / 0.8, "rotates": abs(turn) / 1.2,
    }  # fmt: skip
    name = max(amounts, key=amounts.__getitem__)
    return name if amounts[name] > 0.3 else None


def judge_figure(frames: np.ndarray) -> Figure:
    """Judges a person in frames uint8 (T, 64, 64, 3)."""
    pixels = frames.astype(np.float32)
    background, off_ground = ground_of(pixels)
    person = largest(np.clip(off_ground / 60, 0, 1)) > 0.5
    if person.any((1, 2)).mean() < 0.6:
        return Figure(background, None, None)
    names = list(COLOURS)
    palette = np.stack([*(rgb(name) for name in names), SKIN, TROUSERS])
    kinds = np.linalg.norm(pixels[person][:, None] - palette, axis=-1).argmin(1)
    counts = np.bincount(kinds, minlength=len(palette)) / len(kinds)
    if counts[len(names) :].min() < LIMBS:
        return Figure(background, None, None)
    shirts = counts[: len(names)]
    return Figure(background, names[int(shirts.argmax())], _action(person))


def _apart(cover: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The frames bool (T,) in which two covers (T, H, W) do not touch, so that neither hides part of the other."""
    grown = [cv2.dilate((frame > 0.3).astype(np.uint8), np.ones((5, 5), np.uint8)) for frame in cover]
    return ~np.any(np.stack(grown).astype(bool) & (other > 0.3), axis=(1, 2))


def _action(person: np.ndarray) -> str | None:
    """Names what the silhouette bool (T, H, W) does: it travels, leaves the ground, ducks, or only its top is busy."""
    seen = person[person.any((1, 2))]
    rows, columns = np.any(seen, axis=2), np.any(seen, axis=1)
    top, foot = rows.argmax(1), SIZE - 1 - rows[:, ::-1].argmax(1)
    axis = np.arange(SIZE)
    middle = (seen.sum(1) * axis).sum(1) / seen.sum((1, 2))
    width = columns.sum(1)
    travel = abs(np.polyfit(np.linspace(0, 1, len(middle)), middle, 1)[0])
    if travel > 10:
        return "walking"
    if np.ptp(foot) >= 6:
        return "jumping"
    if np.quantile(top, 0.95) - np.quantile(top, 0.05) >= 6:
        return "squatting"
    return "waving" if np.ptp(width) >= 2 or np.ptp(top) >= 2 else None
