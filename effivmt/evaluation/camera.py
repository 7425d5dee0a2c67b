"""The motion of a clip's parts, from its point tracks: that of the camera, and that of the points of one thing.

Motions are similarities (shift, turn and zoom), fitted by RANSAC from a first frame to every later one, not step by
step, so that they do not drift with the length of a clip.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from effivmt.evaluation.tracks import Tracks

TOLERANCE = 0.02
"""A point follows a motion if it stays this near it, in widths of the frame, for most of its time."""
SPREAD = 0.2
"""Share of the frame that the points of the ground must spread over, on average; else it shows no motion."""
STILL = 0.03
"""A camera that moves nothing in the frame this far, in widths of the frame, stands still."""
_LEAST = 4  # points of a similarity; fewer give a shift alone, as a turn of two near points is mostly noise
_TRIALS = 3


@dataclass(frozen=True)
class Followed:
    """A motion from the first frame on.

    transforms float64 (T, 3, 3): from pixels (x, y) of the first frame to those of each; points bool (N,): the tracks
    that follow it; found bool (T,): whether any was seen in the frame, else the transform is that of the frame before.
    """

    transforms: np.ndarray
    points: np.ndarray
    found: np.ndarray


def camera_motion(tracks: Tracks, height: int, width: int) -> Followed | None:
    """The camera's motion in frames of height x width pixels; None where the ground has no points to tell it by.

    Of the motions that many points share, it is that of the points which spread widest over the frame: a thing that
    moves by itself may have more points than the ground, but seldom fills the frame.
    """
    left, widest, camera = np.ones(len(tracks.points), bool), SPREAD, None
    for _ in range(_TRIALS):
        found = follow(tracks, left & tracks.visible[:, 0], width=width, joins=partial(_all_of, left))
        spread = _spread(tracks, found.points) / (height * width)
        if spread > widest:
            widest, camera = spread, found
        left = left & ~found.points
    return camera


def moves(motion: Followed, height: int, width: int) -> bool:
    """Whether a motion ever takes a corner of a frame of height x width pixels at least `STILL` from its place."""
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]], float)
    moved = np.einsum("tij,nj->tni", motion.transforms, corners) - corners
    return bool(np.linalg.norm(moved[..., :2], axis=-1).max() >= STILL * width)


def follow(
    tracks: Tracks, start: np.ndarray, *, width: int, joins: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Followed:
    """What most of the tracks `start`, bool (N,), all visible in the first frame, do together in frames `width` wide.

    joins: which of the tracks that begin later belong to them, given their places (M, 2) at birth, taken back to the
    first frame, and their indices (M,): bool (M,).
    """
    count, length = tracks.visible.shape
    home = np.full((count, 2), np.nan)
    home[start] = tracks.points[start, 0]
    known, once = start.copy(), start.copy()
    transforms, found = [np.eye(3)], [bool(start.any())]
    for t in range(1, length):
        seen = np.flatnonzero(known & tracks.visible[:, t])
        fit = _similarity(home[seen], tracks.points[seen, t].astype(float), TOLERANCE * width)
        transforms.append(transforms[-1] if fit is None else fit)
        found.append(fit is not None)
        off = np.linalg.norm(moved(home[seen], transforms[-1]) - tracks.points[seen, t], axis=1)
        known[seen[off > 2 * TOLERANCE * width]] = False  # else two motions could change places on the way
        born = np.flatnonzero(tracks.visible[:, t] & ~tracks.visible[:, :t].any(1))
        if len(born) and fit is not None:
            places = moved(tracks.points[born, t].astype(float), np.linalg.inv(fit))
            taken = joins(places, born)
            home[born[taken]], known[born[taken]], once[born[taken]] = places[taken], True, True
    path = np.stack(transforms)
    apart = np.linalg.norm(np.stack([moved(home, it) for it in path], 1) - tracks.points, axis=-1)
    near = ((apart <= TOLERANCE * width) & tracks.visible).sum(1) >= 0.8 * tracks.visible.sum(1)
    return Followed(path, once & near, np.array(found))


def moved(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Points (N, 2) under a similarity (3, 3)."""
    return points @ transform[:2, :2].T + transform[:2, 2]


def _all_of(left: np.ndarray, _places: np.ndarray, born: np.ndarray) -> np.ndarray:
    """Which of the tracks `born` (M,) are among those that are left, bool (N,): bool (M,)."""
    return left[born]


def _spread(tracks: Tracks, points: np.ndarray) -> float:
    """Area of the convex hull of these points, bool (N,), in pixels, on average over the frames."""
    hulls = [cv2.convexHull(tracks.points[points & tracks.visible[:, t], t]) for t in range(tracks.points.shape[1])]
    return float(np.mean([0.0 if hull is None or len(hull) < 3 else cv2.contourArea(hull) for hull in hulls]))


def _similarity(before: np.ndarray, after: np.ndarray, tolerance: float) -> np.ndarray | None:
    """The similarity (3, 3) that most points (K, 2) agree on within `tolerance`; None for no point."""
    if len(before) >= _LEAST:
        fit, inliers = cv2.estimateAffinePartial2D(before, after, ransacReprojThreshold=tolerance)
        if fit is not None and inliers.sum() >= _LEAST:
            return np.vstack([fit, [0.0, 0.0, 1.0]])
    if not len(before):
        return None
    shifts = after - before
    agree = (np.linalg.norm(shifts[:, None] - shifts[None], axis=-1) <= tolerance).sum(1)
    near = np.linalg.norm(shifts - shifts[agree.argmax()], axis=1) <= tolerance
    transform = np.eye(3)
    transform[:2, 2] = shifts[near].mean(0)
    return transform
