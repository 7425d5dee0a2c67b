"""The report of one clip: a single HTML file that holds its videos, figures and numbers and needs no network."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import jinja2
import numpy as np
import yaml
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from effivmt.errors import VideoError
from effivmt.evaluation.names import METRICS, Metric
from effivmt.figures import smooth
from effivmt.video import probe

MEDIA_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}
CODECS = ("h264", "vp8", "vp9", "av1")


@dataclass(frozen=True)
class Result:
    """One rendered video with its prompt, seed and metrics (None: not defined), and the same without the adapter."""

    prompt: str
    seed: int
    video: Path
    metrics: Mapping[str, float | None]
    without_adapter: Path | None = None
    metrics_without_adapter: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Timing:
    """Seconds that a stage took when it ran; `cached` where this run took its artifact from the store."""

    seconds: float
    cached: bool


@dataclass(frozen=True)
class Failure:
    """What went wrong in a stage, in one line."""

    stage: str
    message: str


@dataclass(frozen=True)
class Report:
    """All that the page of one clip shows; videos are H.264, VP8, VP9 or AV1 in .mp4 or .webm, `head_map` is a PNG.

    `losses`: stage -> loss of each step. `timings`: stage -> Timing. `params`: nested, of plain YAML values.
    """

    clip: str
    caption: str
    reference: Path
    backbone_id: str
    backbone_digest: str
    results: Sequence[Result] = ()
    head_map: Path | None = None
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    timings: Mapping[str, Timing] = field(default_factory=dict)
    params: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    failures: Sequence[Failure] = ()


def render_report(data: Report) -> str:
    """Render the HTML page of one clip, the same text for the same data.

    Videos and images are embedded byte for byte as base64 data URIs; every text is escaped, and the page's own policy
    lets a browser load nothing else. Raises VideoError for a video or image that is missing or that no browser shows.
    """
    return _template().render(
        data=data,
        reference=_video(data.reference),
        results=[(it, _video(it.video), it.without_adapter and _video(it.without_adapter)) for it in data.results],
        metrics=_described({name for it in data.results for name in (*it.metrics, *it.metrics_without_adapter)}),
        head_map=data.head_map and _image(data.head_map),
        charts=[_chart(stage, losses) for stage, losses in data.losses.items() if len(losses)],
        params=yaml.safe_dump(dict(data.params), sort_keys=False, allow_unicode=True, width=88) if data.params else "",
    )


@dataclass(frozen=True)
class _Embedded:
    """A file as a data URI, with the size in CSS pixels at which the page shows it."""

    uri: str
    width: int
    height: int
    tiny: bool = False


@dataclass(frozen=True)
class _Chart:
    """A loss curve as SVG path data and ticks (position, text) in the units of a `width` x `height` view box."""

    stage: str
    raw: str
    smoothed: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    summary: str
    width: int = 400
    height: int = 220
    left: int = 48
    right: int = 378
    top: int = 12
    bottom: int = 188


def _video(path: Path) -> _Embedded:
    if path.suffix.lower() not in MEDIA_TYPES:
        raise VideoError(f"report video {str(path)!r} ends in {path.suffix!r}, expected .mp4 or .webm; convert it")
    content = _content(path, "video")
    info = probe(path)
    if info.codec not in CODECS:
        raise VideoError(
            f"report video {str(path)!r} is coded as {info.codec}, expected {', '.join(CODECS)}; encode it as H.264"
        )
    longest = max(info.width, info.height)
    scale = 256 / longest if longest <= 256 else min(1.0, 400 / longest)
    return _Embedded(
        f"data:{MEDIA_TYPES[path.suffix.lower()]};base64,{_base64(content)}",
        round(info.width * scale),
        round(info.height * scale),
        tiny=longest <= 128,
    )


def _image(path: Path) -> _Embedded:
    content = _content(path, "image")
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 24:
        raise VideoError(f"report image {str(path)!r} is not a PNG file, expected a PNG; draw the figure again")
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    return _Embedded(f"data:image/png;base64,{_base64(content)}", width, height)


def _content(path: Path, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise VideoError(
            f"report {kind} {str(path)!r} cannot be read ({error.strerror}), expected a file; make it again"
        ) from error


def _described(names: set[str]) -> dict[str, Metric]:
    """The metrics of these names, those of METRICS first; any other is shown under its own name."""
    unknown = "A number of this run without a description here."
    others = {name: Metric(name.replace("_", " "), "", unknown) for name in sorted(names - METRICS.keys())}
    return {name: metric for name, metric in METRICS.items() if name in names} | others


def _chart(stage: str, losses: Sequence[float]) -> _Chart:
    values = np.asarray(losses, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return _Chart(stage, "", "", [], [], f"none of the {values.size} losses is a finite number")
    low, high = float(finite.min()), float(finite.max())
    margin = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - margin, high + margin

    def x_of(step: np.ndarray | float) -> np.ndarray | float:
        return _Chart.left + (step - 1) / max(values.size - 1, 1) * (_Chart.right - _Chart.left)

    def y_of(loss: np.ndarray | float) -> np.ndarray | float:
        return _Chart.bottom - (loss - low) / (high - low) * (_Chart.bottom - _Chart.top)

    smoothed = smooth(values)
    kept, every = _extremes(values, 300), np.linspace(0, values.size - 1, min(values.size, 300)).round().astype(int)
    x_ticks = MaxNLocator(5, steps=[1, 2, 5, 10], integer=True).tick_values(1, values.size)
    y_ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    ends = smoothed[np.isfinite(smoothed)]
    return _Chart(
        stage,
        _path(x_of(kept + 1), y_of(values[kept])),
        _path(x_of(every + 1), y_of(smoothed[every])),
        [(round(x_of(tick), 1), f"{tick:,.0f}") for tick in x_ticks if 1 <= tick <= values.size],
        [(round(y_of(tick), 1), f"{tick:.4g}") for tick in y_ticks if low <= tick <= high],
        f"{values.size} steps, smoothed loss from {ends[0]:.4g} to {ends[-1]:.4g}",
    )


def _extremes(values: np.ndarray, bins: int) -> np.ndarray:
    """Indices of the least and the greatest value of each of `bins` runs; of all values where these are few."""
    if values.size <= 2 * bins:
        return np.arange(values.size)
    kept = {0, values.size - 1}
    for run in np.array_split(np.arange(values.size), bins):
        if np.isfinite(values[run]).any():
            kept |= {int(run[np.nanargmin(values[run])]), int(run[np.nanargmax(values[run])])}
        else:
            kept.add(int(run[0]))
    return np.array(sorted(kept))


def _path(xs: np.ndarray, ys: np.ndarray) -> str:
    """SVG path data through the points, broken where y is not finite; a lone point becomes a dot (round line caps)."""
    shown = np.isfinite(ys)
    first = shown & ~np.append(False, shown[:-1])
    points = zip(xs[shown], ys[shown], first[shown], strict=True)
    return "".join(f"M{x:.1f} {y:.1f}h0" if starts else f"L{x:.1f} {y:.1f}" for x, y, starts in points)


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "n/a"
    if value and abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _policy_hash(source: Markup) -> str:
    return f"'sha256-{_base64(hashlib.sha256(source.encode('utf-8')).digest())}'"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("effivmt"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, duration=_duration, policy_hash=_policy_hash)
    return environment.get_template("report.html.j2")
