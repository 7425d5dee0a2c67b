"""Loss curves as the pages draw them: SVG path data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from matplotlib.ticker import MaxNLocator

from effivmt.media.figures import smooth

Number = TypeVar("Number", float, np.ndarray)


@dataclass(frozen=True)
class Chart:
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


def loss_chart(stage: str, losses: Sequence[float]) -> Chart:
    """Draws the loss of every step, counted from 1; a long curve is thinned to few points but keeps its extremes."""
    values = np.asarray(losses, dtype=np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Chart(stage, "", "", [], [], f"none of the {values.size} losses is a finite number")
    low, high = float(finite.min()), float(finite.max())
    margin = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - margin, high + margin

    def x_of(step: Number) -> Number:
        return Chart.left + (step - 1) / max(values.size - 1, 1) * (Chart.right - Chart.left)

    def y_of(loss: Number) -> Number:
        return Chart.bottom - (loss - low) / (high - low) * (Chart.bottom - Chart.top)

    smoothed = smooth(values)
    kept, every = _extremes(values, 300), np.linspace(0, values.size - 1, min(values.size, 300)).round().astype(int)
    x_ticks = MaxNLocator(5, steps=[1, 2, 5, 10], integer=True).tick_values(1, values.size)
    y_ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    ends = smoothed[np.isfinite(smoothed)]
    return Chart(
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
