"""Reads what a one-object clip of the procedural world shows, and where, from its pixels alone.

Plain image processing with no learned part, so that samples of the embedded backbone meet a judge that never saw
their training. The ground must stand still; its pattern may be any that the world draws.
"""

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from effivmt.errors import VideoError
from effivmt.world.looks import COLOURS, GROUNDS, rgb
from effivmt.world.motions import SIZE

CONTRAST = 45.0
"""Colours farther than this from the ground's (RGB distance) belong to an object."""
ROUND = 0.09
"""A shape whose outline's harmonics all stay below this share of its mean squared radius is a circle."""
_HARMONICS = {3: "triangle", 4: "square", 5: "star"}
_SHARE = 0.05
"""A shade that covers at least this share of a clip belongs to the ground's pattern."""


@dataclass(frozen=True)
class Verdict:
    """What a clip shows: names of the world, or None where there is no object or the motion has no name.

    path float32 (T, 2): the object's centre (x, y) in pixels, the middle of the first pixel at 0.5; NaN where no
    object is seen.
    """

    colour: str | None
    shape: str | None
    background: str
    motion: str | None
    path: np.ndarray


def judge(frames: np.ndarray) -> Verdict:
    """Judges frames uint8 (T, 64, 64, 3). Raises VideoError for any other kind of array."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (SIZE, SIZE, 3):
        raise VideoError(
            f"cannot judge frames {frames.dtype} {frames.shape}: expected uint8 (T, {SIZE}, {SIZE}, 3); resize the clip"
        )
    pixels = frames.astype(np.float32)
    background, off_ground = ground_of(pixels)
    strong = off_ground > max(CONTRAST, 0.75 * float(np.quantile(off_ground, 0.995)))
    if not strong.any():
        return Verdict(None, None, background, None, np.full((len(frames), 2), np.nan, np.float32))
    names = list(COLOURS)
    palette = np.stack([rgb(name) for name in names])
    nearest = np.linalg.norm(pixels[strong][:, None] - palette, axis=-1).argmin(1)
    colour = names[int(np.bincount(nearest, minlength=len(names)).argmax())]
    cover = largest(np.minimum(off_ground / np.median(off_ground[strong]), 1.0))
    area = cover.sum((1, 2))
    path = centres(cover, area)
    return Verdict(colour, shape_of(cover), background, _motion(path, area), path)


def path_scores(path: np.ndarray, true_path: np.ndarray) -> tuple[float, float]:
    """How well path follows true_path, both (T, 2) in pixels: (correlation, rms error).

    The correlation, in [-1, 1], is Pearson's over time of x and of y, averaged with the true path's variances as
    weights: it ignores where the path lies and how large it is; a path that stands still has 0. The rms error, in
    frame widths, is of absolute positions: 0 only on the very same path. A frame where path is NaN counts as if the
    object stood in the middle of the frame. Raises VideoError if the lengths differ.
    """
    if path.shape != true_path.shape:
        raise VideoError(f"cannot compare paths {path.shape} and {true_path.shape}: sample both at the same frames")
    path = np.where(np.isfinite(path), path, SIZE / 2).astype(np.float64)
    rms = float(np.sqrt(((path - true_path) ** 2).sum(1).mean())) / SIZE
    mine, true = path - path.mean(0), true_path - true_path.mean(0)
    variance = (true**2).mean(0)
    spread = np.sqrt((mine**2).mean(0) * variance)
    pearson = np.divide((mine * true).mean(0), spread, out=np.zeros(2), where=spread > 1e-6)
    return float((pearson * variance).sum() / max(variance.sum(), 1e-9)), rms


def ground_of(pixels: np.ndarray) -> tuple[str, np.ndarray]:
    """The ground's name and every pixel's distance (T, H, W) from its colours and the blends between them."""
    flat = pixels[:, 1::3, 1::3].reshape(-1, 3)
    distances = {name: np.linalg.norm(flat[:, None] - _shades(name), axis=-1) for name in GROUNDS}
    name = min(GROUNDS, key=lambda name: float(np.median(distances[name].min(1))))
    close = distances[name] < 30
    tones = [np.median(flat[near], 0) for near in close.T if near.mean() > _SHARE]
    tones = tones or [np.median(flat, 0)]
    ends = list(pairwise(tones)) or [(tones[0], tones[0])]
    return name, np.min([_from_segment(pixels, start, stop) for start, stop in ends], axis=0)


def _shades(name: str) -> np.ndarray:
    """Colours (3, 3) that a ground of that name can show: darker, plain, lighter."""
    base = rgb(name)
    return np.stack([0.55 * base, base, 1.6 * base + 25])


def _from_segment(pixels: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    way = stop - start
    along = np.clip((pixels - start) @ way / max(float(way @ way), 1e-6), 0.0, 1.0)
    return np.linalg.norm(pixels - start - along[..., None] * way, axis=-1)


def largest(cover: np.ndarray) -> np.ndarray:
    """Keeps of cover (T, H, W) the largest connected part above one half, with its soft rim, in each frame."""
    kept = np.zeros_like(cover)
    for t, frame in enumerate(cover):
        count, labels, stats, _ = cv2.connectedComponentsWithStats((frame > 0.5).astype(np.uint8))
        if count > 1:
            part = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
            kept[t] = frame * cv2.dilate(part.astype(np.uint8), np.ones((5, 5), np.uint8))
    return kept


def centres(cover: np.ndarray, area: np.ndarray) -> np.ndarray:
    """The centres (T, 2) in pixels of covers (T, H, W) of these areas (T,); NaN where an area is below 6 pixels."""
    axis = np.arange(SIZE) + 0.5
    sums = np.stack([(cover.sum(1) * axis).sum(1), (cover.sum(2) * axis).sum(1)], 1)
    return np.divide(sums, area[:, None], out=np.full_like(sums, np.nan), where=area[:, None] >= 6).astype(np.float32)


def shape_of(cover: np.ndarray) -> str | None:
    """Names a shape that covers `cover` (T, H, W), by the outline's harmonics 3, 4 and 5, averaged by area.

    The strongest decides; None where nothing is covered.
    """
    area = cover.sum((1, 2))
    path = centres(cover, area)
    seen = np.flatnonzero(np.isfinite(path[:, 0]))
    if not len(seen):
        return None
    strengths = np.zeros(len(_HARMONICS))
    for t in seen:
        centre = (float(path[t, 0]) - 0.5, float(path[t, 1]) - 0.5)
        polar = cv2.warpPolar(
            cover[t].astype(np.float32), (SIZE, 120), centre, SIZE / 2, cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS
        )
        squared_radius = (polar * (np.arange(SIZE) + 0.5)).sum(1)
        spectrum = np.abs(np.fft.rfft(squared_radius))
        strengths += area[t] * 2 * spectrum[list(_HARMONICS)] / max(spectrum[0], 1e-6)
    strengths /= area[seen].sum()
    return list(_HARMONICS.values())[int(strengths.argmax())] if strengths.max() > ROUND else "circle"


def _motion(path: np.ndarray, area: np.ndarray) -> str | None:
    """Names the motion whose form the path and the area over time fit; None where none fits."""
    seen = np.isfinite(path[:, 0])
    if seen.sum() < max(4, 0.6 * len(path)):
        return None
    t = np.linspace(-0.5, 0.5, len(path))[seen]
    x, y = path[seen].T.astype(np.float64)
    growth = np.polyfit(t, np.log(area[seen]), 1)[0]
    if abs(growth) > 0.9 and max(np.ptp(x), np.ptp(y)) < 9:
        return "growing" if growth > 0 else "shrinking"
    (dx, x0), (dy, y0) = np.polyfit(t, x, 1), np.polyfit(t, y, 1)
    off = np.sqrt(np.mean((x - x0 - dx * t) ** 2 + (y - y0 - dy * t) ** 2))
    if max(abs(dx), abs(dy)) > 12 and off < 3.0 and min(abs(dx), abs(dy)) < 0.3 * max(abs(dx), abs(dy)):
        if abs(dx) > abs(dy):
            return "moving right" if dx > 0 else "moving left"
        return "moving down" if dy > 0 else "moving up"
    if _circles(x, y):
        return "moving in a circle"
    return "bouncing" if _bounces(x, y) else None


def _circles(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the points lie on a circle (Kasa's least-squares fit) and go round it, one way, at least 0.85 times."""
    system = np.stack([x, y, np.ones_like(x)], 1)
    a, b, c = np.linalg.lstsq(system, x**2 + y**2, rcond=None)[0]
    radius = np.sqrt(max(c + (a / 2) ** 2 + (b / 2) ** 2, 0.0))
    off = np.hypot(x - a / 2, y - b / 2) - radius
    turns = np.diff(np.unwrap(np.arctan2(y - b / 2, x - a / 2)))
    one_way = abs(turns.sum()) > 0.85 * np.abs(turns).sum()
    return bool(6 < radius < SIZE / 2 and off.std() < 0.15 * radius and abs(turns.sum()) > 1.7 * np.pi and one_way)


def _bounces(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the path stays upright and y takes at least three strokes, up and down in turn, of half its range."""
    reach = np.ptp(y)
    strokes, low, high, way = 0, y[0], y[0], 0
    for value in y:
        low, high = min(low, value), max(high, value)
        if way <= 0 and value - low > 0.5 * reach:
            strokes, way, high = strokes + 1, 1, value
        elif way >= 0 and high - value > 0.5 * reach:
            strokes, way, low = strokes + 1, -1, value
    return bool(reach > 12 and x.std() < 0.2 * reach and strokes >= 3)
