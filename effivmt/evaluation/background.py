"""Background leakage: how much of the reference's background shows in a result, measured on pixels alone.

CLIP does not notice a leaked pattern that no caption names, such as the wallpaper behind a person. This metric finds
such a pattern by its edges, at the position where the reference has them.
"""

import cv2
import numpy as np

from effivmt.evaluation.quality import check_frames

SIDE = 128
"""Short side of the compared frames, in pixels."""
ENOUGH = 64
"""Frames of a video from which its background is estimated; a longer video is thinned."""
CHANGED = 0.12
"""A pixel counts as moving if it differs by more than this (natural logarithm) in a tenth of the frames."""
GRID = 8
"""Cells along each side of the frame, to measure how far edges spread."""
PATTERNED = 0.5
"""Share of the cells that must have edges for a background to be patterned. In motionbench-mini objects on a plain
ground have at most 0.45, camera clips 0.8 or more."""
PAIRS = 32
"""Frames of a moving background that are compared, at most."""


def background_leakage(reference_frames: np.ndarray, generated_frames: np.ndarray) -> float | None:
    """Share of the edges of the reference's background that the result has at the same position: 0 none, 1 all.

    Frames uint8 (T, H, W, 3) of any sizes and lengths; the generated frame is stretched onto the reference's. The
    median of each video over time removes what moves through the frame. Of the median the orientations of the edges
    are compared, weighted by contrast and without a sign, so neither the colours nor which side is lighter matters.
    The result's orientations are projected on the reference's wherever the reference is still. Where it is nowhere
    still, as under a moving camera, frames at the same time are compared instead of the medians, all over. A plain
    background gives 0, another pattern as much as its edges happen to agree in position and orientation, and edges
    across the reference's a negative value; the maximum is 1. None where the reference's background is plain.

    Source: the double-angle representation of local orientation, Granlund and Knutsson, "Signal Processing for Computer
    Vision" (1995). Raises VideoError if frames are of another kind.
    """
    for frames in (reference_frames, generated_frames):
        check_frames(frames)
    height, width = reference_frames.shape[1:3]
    zoom = SIDE / min(height, width)
    size = (round(width * zoom), round(height * zoom))
    reference, generated = _logarithms(reference_frames, size), _logarithms(generated_frames, size)
    ground = np.median(reference, axis=0)
    still = _still(reference, ground)
    edges = _orientation(ground) * still[..., None]
    if _spread(edges) >= PATTERNED:
        return _shared(edges, _orientation(np.median(generated, axis=0)))
    count = min(PAIRS, len(reference_frames), len(generated_frames))
    edges, found = (
        np.stack([_orientation(frame) for frame in _logarithms(frames[_evenly(len(frames), count)], size)])
        for frames in (reference_frames, generated_frames)
    )
    return _shared(edges, found) if np.mean([_spread(frame) for frame in edges]) >= PATTERNED else None


_DARK = 16.0  # gray levels added before the logarithm: below it contrasts fade, and so does the codec's noise
_BLUR = 2.0  # standard deviation in pixels of the resized frame
_MARGIN = 9  # side in pixels of the square by which the moving area is dilated
_FAINTEST = 0.01  # slope of an edge, natural logarithm a pixel


def _evenly(length: int, count: int) -> np.ndarray:
    """Indices of `count` evenly spread frames of `length`, with the first and the last."""
    return np.linspace(0, length - 1, count).round().astype(int)


def _spread(edges: np.ndarray) -> float:
    """Share of the cells of a frame that have some of its edges (h, w, 2)."""
    seen = (np.linalg.norm(edges, axis=-1) > _FAINTEST).astype(np.float32)
    return float((cv2.resize(seen, (GRID, GRID), interpolation=cv2.INTER_AREA) > 0).mean())


def _shared(edges: np.ndarray, found: np.ndarray) -> float:
    """The edges found, projected on those of the reference (both of one shape), as a share of them: -1 to 1."""
    return float(np.clip((edges * found).sum() / (edges**2).sum(), -1, 1))


def _logarithms(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Logarithm of the smoothed frames, resized to (width, height): float32 (at most 2 `ENOUGH`, h, w, 3)."""
    frames = frames[:: max(1, len(frames) // ENOUGH)]
    how = cv2.INTER_AREA if frames.shape[2] > size[0] else cv2.INTER_CUBIC
    resized = [cv2.resize(frame, size, interpolation=how).astype(np.float32) for frame in frames]
    return np.stack([cv2.GaussianBlur(np.log(frame + _DARK), (0, 0), _BLUR) for frame in resized])


def _still(video: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Where a video (T, h, w, 3) always shows its background (h, w, 3): bool (h, w)."""
    strayed = np.quantile(np.abs(video - ground).max(-1), 0.9, axis=0)
    return cv2.dilate((strayed > CHANGED).astype(np.uint8), np.ones((_MARGIN, _MARGIN), np.uint8)) == 0


def _orientation(image: np.ndarray) -> np.ndarray:
    """Edges of an image (h, w, 3) as vectors (h, w, 2): length the slope, angle twice that of the gradient."""
    dx, dy = (cv2.Sobel(image, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    xx, yy, xy = ((a * b).sum(-1) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    slope = np.sqrt(xx + yy)
    return np.stack([xx - yy, 2 * xy], axis=-1) / np.maximum(slope, 1e-9)[..., None]
