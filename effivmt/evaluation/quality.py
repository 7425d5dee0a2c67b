"""Frame quality of a video: how sharp its edges are, and how much it flickers.

Neither metric needs a model or returns NaN; a video without edges has sharpness 0.
"""

from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np

from effivmt.errors import VideoError

SHORT_SIDE = (128, 256)
"""Flicker is measured on frames whose short side, in pixels, lies in this range."""
NEIGHBOURHOOD = 1 / 8
"""Side of the square in which an edge is compared with the contrast around it, in frame widths."""
RETURNS = 1.0
"""Flow counts where forward and backward flow together return to within this distance, in pixels as resized."""


def sharpness(reference_frames: np.ndarray, generated_frames: np.ndarray) -> float:
    """Steepness of a video's edges relative to its reference's: 1 is as sharp, below 1 blurrier; never negative.

    Frames uint8 (T, H, W, 3); the wider video is shrunk to the width of the other. 0 if either has no edges. Noise has
    edges too: read it with the flicker. Raises VideoError as `edge_steepness` does.
    """
    for frames in (reference_frames, generated_frames):
        check_frames(frames)
    width = min(reference_frames.shape[2], generated_frames.shape[2])
    reference, generated = (edge_steepness(frames, width) for frames in (reference_frames, generated_frames))
    return generated / reference if reference > 0 else 0.0


def edge_steepness(frames: np.ndarray, width: int | None = None) -> float:
    """Slope of a video's edges over the contrast around them, a pixel: about 0.6 at most; 0 without edges.

    Frames uint8 (T, H, W, 3), shrunk to `width` if given. It is the inverse of the edges' width in pixels, and depends
    on neither contrast nor colours. An edge is where the slope is highest in its `NEIGHBOURHOOD`; the contrast is the
    range of values there. Edges of less than half of the video's largest contrast, such as noise on a plain ground, do
    not count. Raises VideoError if frames are of another kind.

    Source: edge width as the measure of blur, Marziliano et al., "A no-reference perceptual blur metric" (ICIP 2002).
    """
    check_frames(frames)
    width = width or frames.shape[2]
    # Twice over the frames: all edges of a video without contrast would take more memory than the video itself.
    least = max(max(contrast.max() for contrast, _ in _edges(frames, width)) / 2, _FAINTEST)
    steepness = []
    for contrast, slope in _edges(frames, width):
        strong = contrast >= least
        steepness.append(slope[strong] / contrast[strong])
    found = np.concatenate(steepness)
    return float(found.mean()) if len(found) else 0.0


def flicker(frames: np.ndarray) -> float:
    """Mean change between adjacent frames that motion does not explain, as a share of the range of gray levels.

    Frames uint8 (T, H, W, 3), at least 2; in [0, 1], 0 is best. Both neighbours of a frame are warped onto it along
    dense optical flow. A pixel's change is its difference, averaged over the colours, from those neighbours whose flow
    leads back to it, so that what is covered or revealed does not count; where neither does, it is the smaller of the
    two differences. A clean moving clip has a small flicker, because warping resamples it; a frozen one has none.
    Raises VideoError if frames are of another kind or fewer than 2.

    Source: warping error, Lai et al., "Learning Blind Video Temporal Consistency" (ECCV 2018); flow from Kroeger et
    al., "Fast Optical Flow using Dense Inverse Search" (ECCV 2016).
    """
    check_frames(frames)
    if len(frames) < 2:
        raise VideoError(f"flicker of {len(frames)} frames is undefined: give a video of at least 2")
    height, width = frames.shape[1:3]
    zoom = np.clip(min(height, width), *SHORT_SIDE) / min(height, width)
    size, how = (round(width * zoom), round(height * zoom)), cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA
    images = (cv2.resize(frame, size, interpolation=how) for frame in frames)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    earlier: list[tuple[np.ndarray, np.ndarray]] = []
    changes: list[float] = []
    for image, following in pairwise(images):
        grays = [cv2.cvtColor(it, cv2.COLOR_RGB2GRAY) for it in (image, following)]
        # OpenCV takes None for a flow to start from, which its types do not say.
        there, back = flow.calc(*grays, None), flow.calc(*grays[::-1], None)  # type: ignore[call-overload]
        changes.append(_change([*earlier, _warped(following, image, there, back)]))
        earlier = [_warped(image, following, back, there)]
    return float(np.mean([*changes, _change(earlier)])) / 255


_FAINTEST = 8.0  # contrast in gray levels below which nothing is an edge
_AROUND = (9, 9)  # pixels of the resized frame over which motion and standing still are compared


def check_frames(frames: np.ndarray) -> None:
    """Raises VideoError unless frames are uint8 (T, H, W, 3) with T at least 1."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) == 0:
        raise VideoError(f"cannot judge {frames.dtype} frames of shape {frames.shape}: give uint8 frames (T, H, W, 3)")


def _edges(frames: np.ndarray, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each frame, shrunk to this width: contrast and slope, float32 (K,), of its K edge pixels."""
    window = np.ones((max(3, round(width * NEIGHBOURHOOD)),) * 2, np.uint8)
    size = (width, max(1, round(frames.shape[1] * width / frames.shape[2])))
    for own in frames:
        frame = own if frames.shape[2] == width else cv2.resize(own, size, interpolation=cv2.INTER_AREA)
        contrast = (cv2.dilate(frame, window).astype(np.float32) - cv2.erode(frame, window)).max(-1)
        dx, dy = (cv2.Sobel(frame, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
        slope = np.hypot(dx, dy).max(-1)
        edge = slope >= cv2.dilate(slope, window)
        yield contrast[edge], slope[edge]


def _warped(
    neighbour: np.ndarray, image: np.ndarray, there: np.ndarray, back: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Differences (h, w) in gray levels of an image from its neighbour, and where the flow leads back: bool (h, w).

    Where the frame without motion fits better than the warped one, it is used: a change of colour can mislead the flow.
    """
    height, width = image.shape[:2]
    origin = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32) + there
    moved, still = (
        np.abs(it - image).mean(-1)
        for it in (_sampled(neighbour.astype(np.float32), origin), neighbour.astype(np.float32))
    )
    difference = np.where(cv2.blur(still, _AROUND) < cv2.blur(moved, _AROUND), still, moved)
    inside = ((origin >= 0) & (origin <= [width - 1, height - 1])).all(-1)
    return difference, inside & (np.linalg.norm(there + _sampled(back, origin), axis=-1) <= RETURNS)


def _change(neighbours: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Mean change of a frame in gray levels, from what `_warped` gives of its one or two neighbours."""
    difference, returns = map(np.stack, zip(*neighbours, strict=True))
    trusted = (difference * returns).sum(0) / np.maximum(returns.sum(0), 1)
    return float(np.where(returns.any(0), trusted, difference.min(0)).mean())


def _sampled(image: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Image (h, w, c) at the points (x, y) in pixels, at (h, w, 2), linear between pixels."""
    # One map of (x, y) needs no second one, which OpenCV's types ask for.
    return cv2.remap(image, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
