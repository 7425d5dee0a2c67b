"""Point tracks of a video by pyramidal Lucas-Kanade: what the motion metrics are computed from."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from effivmt.errors import VideoError

SHORT_SIDE = (128, 256)
"""Tracking resizes frames so that their short side, in pixels, lies in this range."""
WINDOW = 21
"""Side of the matching window, in pixels of the resized frame; it is the same on all 4 levels of the pyramid."""
ROUND_TRIPS = (0.35, 0.7, 1.4)
"""A step counts if tracking it back ends at most this far from its start, in pixels of the resized frame. The strictest
of these limits that leaves `ENOUGH` points is used: soft bodies that deform, as generated ones do, track back less
exactly than real ones and would lose nearly all their points under the strictest.
"""
ENOUGH = 14.0
"""Points per frame, on average over the clip, that a limit of `ROUND_TRIPS` must leave."""
ALIKE = 0.7
"""A step counts only if the windows around its two ends have at least this correlation."""
BIRTHS = 5
"""Points are born at this many frames, evenly spread from the first to the last."""


@dataclass(frozen=True)
class Tracks:
    """points float32 (N, T, 2): (x, y) in pixels, a pixel's centre at integers; visible bool (N, T).

    A point is visible in one unbroken span of frames; before and after it keeps its first or last visible position.
    """

    points: np.ndarray
    visible: np.ndarray


Tracker = Callable[[np.ndarray], Tracks]
"""Follows points through frames uint8 (T, H, W, 3)."""


def track(frames: np.ndarray, *, grid: int = 8) -> Tracks:
    """Follows points through a whole clip, frames uint8 (T, H, W, 3) of any colours.

    At each of `BIRTHS` frames, every cell of a grid x grid partition without a point receives one on its best corner.
    The point is followed to both ends of the clip, or until the round trip (forward, then back) fails or its
    surroundings have changed too much. The limit of a round trip is the strictest of `ROUND_TRIPS` that leaves `ENOUGH`
    points. Plain areas and straight edges have no corner and get no point; a clip without texture has N = 0. Points
    followed for less than a quarter of the clip are dropped. Raises VideoError if frames are of another kind or fewer
    than 2.

    Source: Bouguet, "Pyramidal Implementation of the Lucas Kanade Feature Tracker"; Shi and Tomasi, "Good Features to
    Track" (smallest eigenvalue); Kalal et al., "Forward-Backward Error".
    """
    check_frames(frames)
    num_frames, height, width = frames.shape[:3]
    images = _resized_contrast(frames)
    births = np.linspace(0, num_frames - 1, BIRTHS).round().astype(int)
    corners = {t: _cornerness(images[t]) for t in births.tolist()}
    floor = max(_WEAKEST, _QUALITY * max(float(corner.max()) for corner in corners.values()))

    for allowed in ROUND_TRIPS:
        found = lasting(_followed(images, corners, floor, grid, round_trip=allowed))
        if found.visible.sum() >= ENOUGH * num_frames:
            break
    scale = np.array(images[0].shape[1::-1], np.float32) / np.array([width, height], np.float32)
    return Tracks((found.points + 0.5) / scale - 0.5, found.visible)


def _followed(
    images: list[np.ndarray], corners: dict[int, np.ndarray], floor: float, grid: int, *, round_trip: float
) -> Tracks:
    """Points born where `corners` (h, w) of some frames are at least `floor`, in pixels of the images (h, w, c).

    They are followed to both ends of the clip, as long as their round trips end within `round_trip` pixels.
    """
    num_frames = len(images)
    points = np.zeros((0, num_frames, 2), np.float32)
    visible = np.zeros((0, num_frames), bool)
    for now in range(num_frames):
        if now in corners:
            born = _best_corners(corners[now], points[visible[:, now], now], grid, floor)
            points = np.concatenate([points, np.repeat(born[:, None], num_frames, 1)])
            visible = np.concatenate([visible, np.tile(np.arange(num_frames) == now, (len(born), 1))])
        if now + 1 < num_frames:
            alive = np.flatnonzero(visible[:, now])
            _advance(images, points, visible, alive, now=now, then=now + 1, round_trip=round_trip)
    birth = visible.argmax(1)
    for now in range(num_frames - 1, 0, -1):
        alive = np.flatnonzero(visible[:, now] & (birth >= now))
        _advance(images, points, visible, alive, now=now, then=now - 1, round_trip=round_trip)
    return Tracks(points, visible)


def lasting(tracks: Tracks) -> Tracks:
    """The tracks that are visible in at least a quarter of the clip, and in at least 2 frames."""
    kept = tracks.visible.sum(1) >= max(2, tracks.visible.shape[1] // 4)
    return Tracks(tracks.points[kept], tracks.visible[kept])


def check_frames(frames: np.ndarray) -> None:
    """Raises VideoError unless frames are uint8 (T, H, W, 3) with T at least 2."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise VideoError(f"cannot track {frames.dtype} frames of shape {frames.shape}: give uint8 frames (T, H, W, 3)")
    if len(frames) < 2:
        raise VideoError(f"cannot track a clip of {len(frames)} frames: motion needs at least 2")


_QUALITY = 0.01  # a corner counts from this share of the clip's best one: a tenth of its contrast
_WEAKEST = 4.0  # and from this response, that of a sharp corner 2 gray levels high at the largest gain
_PEAK = 0.3  # a point sits where response and texture are at least this share of their highest within a window
_ROUNDNESS = 0.03  # ratio of the eigenvalues below which a corner is a straight edge
_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)


def _resized_contrast(frames: np.ndarray) -> list[np.ndarray]:
    """Frames on the clip's own colour axes with the full range of gray levels, resized: uint8 (h, w, 1 to 3) each.

    The axes are the principal components of the clip's colours, so that two hues of equal luminance also differ.
    """
    height, width = frames.shape[1:3]
    zoom = np.clip(min(height, width), *SHORT_SIDE) / min(height, width)
    size = (round(width * zoom), round(height * zoom))
    colours = frames[:: max(1, len(frames) // 8), ::2, ::2].reshape(-1, 3).astype(np.float32)
    _, axes = np.linalg.eigh(np.cov(colours.T))
    axes = axes[:, ::-1].astype(np.float32)
    low, high = np.quantile(colours @ axes, [0.001, 0.999], axis=0)
    kept = high - low > 0.15 * (high - low).max()
    kept[0] = True
    axes, middle = axes[:, kept], ((low + high) / 2)[kept]
    gain = min(250 / max((high - low).max(), 1.0), 8.0)
    images = []
    for frame in frames:
        resized = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA)
        images.append(np.clip((resized @ axes - middle) * gain + 127.5, 0, 255).round().astype(np.uint8))
    return images


def _cornerness(image: np.ndarray) -> np.ndarray:
    """Smallest eigenvalue of the structure tensor of image (h, w, c), zero on edges and beside the texture: (h, w)."""
    dx, dy = (
        cv2.Sobel(image, cv2.CV_32F, *order, scale=1 / 8).reshape(*image.shape[:2], -1) for order in ((1, 0), (0, 1))
    )
    products = [(a * b).sum(-1) for a, b in ((dx, dx), (dy, dy), (dx, dy))]
    xx, yy, xy = (cv2.GaussianBlur(product, (0, 0), WINDOW / 4) for product in products)
    mean, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    smallest, largest = mean - spread, mean + spread
    texture = cv2.GaussianBlur(products[0] + products[1], (0, 0), WINDOW / 10)
    kept = (smallest > _ROUNDNESS * largest) & _near_peak(smallest) & _near_peak(texture)
    return np.where(kept, smallest, 0.0)


def _near_peak(values: np.ndarray) -> np.ndarray:
    """Where values (h, w) reach `_PEAK` of the highest value within a window."""
    return values >= _PEAK * cv2.dilate(values, np.ones((WINDOW, WINDOW), np.uint8))


def _best_corners(corner: np.ndarray, taken: np.ndarray, grid: int, floor: float) -> np.ndarray:
    """The best corner (x, y) of each cell of the grid without one of the points `taken` (K, 2): float32 (M, 2)."""
    bounds_y, bounds_x = (np.linspace(0, side, grid + 1).astype(int) for side in corner.shape)
    full = np.zeros((grid, grid), bool)
    full[np.searchsorted(bounds_y, taken[:, 1], "right") - 1, np.searchsorted(bounds_x, taken[:, 0], "right") - 1] = (
        True
    )
    best = []
    for row, column in np.argwhere(~full):
        cell = corner[bounds_y[row] : bounds_y[row + 1], bounds_x[column] : bounds_x[column + 1]]
        y, x = np.unravel_index(cell.argmax(), cell.shape)
        if cell[y, x] > floor:
            best.append((x + bounds_x[column], y + bounds_y[row]))
    return np.array(best, np.float32).reshape(-1, 2)


def _advance(
    images: list[np.ndarray],
    points: np.ndarray,
    visible: np.ndarray,
    rows: np.ndarray,
    *,
    now: int,
    then: int,
    round_trip: float,
) -> None:
    """Follows the points `rows` from frame `now` to the neighbouring frame `then`; updates points and visible."""
    if len(rows) == 0:
        return
    reached, followed = _follow(images[now], images[then], points[rows, now], round_trip)
    onwards = slice(then, None) if then > now else slice(None, then + 1)
    points[rows[followed], onwards] = reached[followed, None]
    visible[rows[followed], then] = True


def _follow(
    first: np.ndarray, second: np.ndarray, start: np.ndarray, round_trip: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points (K, 2) of the first image in the second, and which of them (K,) came back to where they started.

    A window moves a point with everything that it shows, which is inexact on bodies that turn or grow. So a window of
    half the side starts from the result; its answer is taken where it lies near and comes back almost exactly.
    """
    reached, returned = _round_trip(first, second, start, side=WINDOW, levels=3, guess=None)
    followed = (returned < round_trip) & _alike(first, second, start, reached)
    fine, fine_returned = _round_trip(first, second, start, side=WINDOW // 4 * 2 + 1, levels=0, guess=reached)
    better = (fine_returned < 0.1) & (np.linalg.norm(fine - reached, axis=1) < 0.5)
    reached[better] = fine[better]
    inside = ((reached >= 0) & (reached <= np.array(first.shape[1::-1]) - 1)).all(1)
    return reached, inside & followed


def _alike(first: np.ndarray, second: np.ndarray, start: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Whether the windows around points (K, 2) of the first image and `reached` in the second are alike: (K,)."""
    one, other = (_windows(image, points) for image, points in ((first, start), (second, reached)))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) >= ALIKE * np.maximum(norms, 1e-6)


def _windows(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The windows around points (K, 2) of an image (h, w, c), each channel less its mean: float32 (K, c * side^2)."""
    channels = [np.ascontiguousarray(channel) for channel in np.moveaxis(np.atleast_3d(image), 2, 0)]
    cut = np.stack(
        [[cv2.getRectSubPix(channel, (WINDOW, WINDOW), at) for channel in channels] for at in points.astype(float)]
    ).astype(np.float32)
    return (cut - cut.mean((2, 3), keepdims=True)).reshape(len(points), -1)


def _round_trip(
    first: np.ndarray, second: np.ndarray, start: np.ndarray, *, side: int, levels: int, guess: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Points (K, 2) in the second image, searched from a guess, and how far from the start they come back (K,)."""
    flags = 0 if guess is None else cv2.OPTFLOW_USE_INITIAL_FLOW
    there, back = (None, None) if guess is None else (guess.copy(), start.copy())

    def search(
        image: np.ndarray, other: np.ndarray, points: np.ndarray, near: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        moved, found, _ = cv2.calcOpticalFlowPyrLK(
            image,
            other,
            points,
            near,  # type: ignore[arg-type]  # OpenCV takes None, which its types do not say
            winSize=(side, side),
            maxLevel=levels,
            criteria=_STOP,
            flags=flags,
        )
        return moved, found

    reached, found = search(first, second, start, there)
    origin, found_back = search(second, first, reached, back)
    found = (found[:, 0] == 1) & (found_back[:, 0] == 1)
    return reached, np.where(found, np.linalg.norm(origin - start, axis=1), np.inf)
