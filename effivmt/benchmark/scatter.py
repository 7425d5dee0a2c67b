"""The picture of a comparison: motion fidelity against time."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from effivmt.benchmark.methods import OURS
from effivmt.benchmark.results import MethodSummary, Summary
from effivmt.benchmark.statistics import Estimate, as_estimate
from effivmt.media.figures import BRANCH_COLOURS, INK, MUTED, OTHER_COLOURS, RULE

STYLES = {
    "method": ("o", BRANCH_COLOURS["spatial"]),
    "variant": ("D", OTHER_COLOURS[2]),
    "ablation": ("s", OTHER_COLOURS[0]),
    "control": ("^", OTHER_COLOURS[1]),
    "sweep": ("v", OTHER_COLOURS[3]),
}
OURS_COLOUR = BRANCH_COLOURS["temporal"]
LABEL = 11.0
"""Distance in points at which two labels do not touch."""


@dataclass(frozen=True)
class Point:
    """One method: its number in the legend, its marker and colour (RGB in [0, 1]), its time and its fidelity."""

    number: int
    title: str
    marker: str
    colour: np.ndarray
    ours: bool
    seconds: Estimate
    fidelity: Estimate

    @property
    def at(self) -> tuple[float, float]:
        """Its coordinates."""
        return self.seconds.mean, self.fidelity.mean


def scatter(summary: Summary) -> np.ndarray:
    """A numbered point for each method, with its intervals, over a logarithmic time axis; uint8 (H', W', 3).

    A method without a time or a fidelity (all its cells failed) has no point.
    """
    points, ink = _points(summary["methods"]), np.divide(INK, 255)
    height = max(5.0, 0.22 * len(points) + 0.8)
    figure = Figure(figsize=(10.4, height), dpi=120, facecolor="white")
    canvas, axes = FigureCanvasAgg(figure), figure.add_axes((0.08, 0.62 / height, 0.58, 1 - 1.1 / height))
    for point in points:
        bars = [_bar(point.seconds), _bar(point.fidelity)]
        axes.errorbar(*point.at, xerr=bars[0], yerr=bars[1], color=point.colour, linewidth=0.9, alpha=0.45, zorder=2)
        size = 90 if point.ours else 42
        axes.scatter(*point.at, color=[point.colour], marker=point.marker, s=size, zorder=3)
    _style(axes)
    title = f"{summary['suite']}: {summary['clips']} clip{'s' if summary['clips'] != 1 else ''}"
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=ink, parse_math=False)
    _number(axes, points)
    for point in points:
        y = 1 - 0.48 / height - 0.22 / height * (point.number - 1)
        weight = "bold" if point.ours else "normal"
        figure.text(0.69, y, f"{point.number}", color=point.colour, fontsize=9, fontweight="bold", ha="right", va="top")
        figure.text(0.70, y, point.title, color=ink, fontsize=9, fontweight=weight, va="top", parse_math=False)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _points(methods: Mapping[str, MethodSummary]) -> list[Point]:
    points: list[Point] = []
    for name, method in methods.items():
        seconds, fidelity = (
            as_estimate(method["estimates"].get(measure)) for measure in ("seconds", "motion_fidelity")
        )
        if seconds is not None and fidelity is not None:
            marker, of_kind = STYLES[method["kind"]]
            colour = np.divide(OURS_COLOUR if name == OURS else of_kind, 255)
            number = len(points) + 1
            points.append(Point(number, method["title"], marker, colour, name == OURS, seconds, fidelity))
    return points


def _bar(found: Estimate) -> list[list[float]] | None:
    """Lengths of the error bar below and above the mean."""
    if found.low is None or found.high is None:
        return None
    return [[found.mean - found.low], [found.high - found.mean]]


def _number(axes: Axes, points: list[Point]) -> None:
    """Writes each point's number beside it, at the first position around it that is free of numbers and points."""
    scale = axes.figure.dpi / 72
    taken = [axes.transData.transform(point.at) / scale for point in points]
    for point, centre in zip(points, taken.copy(), strict=True):
        around = [
            radius * np.array([np.cos(angle), np.sin(angle)])
            for radius in (11, 20, 29)
            for angle in np.deg2rad(range(30, 390, 30))
        ]
        free = (way for way in around if min(np.abs(place - centre - way).max() for place in taken) >= LABEL * 0.8)
        way = next(free, around[0])
        taken.append(centre + way)
        axes.annotate(
            str(point.number), point.at, tuple(way), textcoords="offset points", ha="center", va="center", fontsize=8,
            color=point.colour, fontweight="bold", zorder=4,
        )  # fmt: skip


def _style(axes: Axes) -> None:
    ink, rule = np.divide(MUTED, 255), np.divide(RULE, 255)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds from the reference's file to one video (logarithmic)", color=ink)
    axes.set_ylabel("motion fidelity", color=ink)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(rule)
    axes.tick_params(colors=ink, which="both", length=0)
    axes.grid(color=rule, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(0.1)
    axes.autoscale_view()
