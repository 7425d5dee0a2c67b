"""The picture of a comparison: motion fidelity against the time that it takes."""

from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from effivmt.benchmark.methods import OURS
from effivmt.benchmark.results import as_estimate
from effivmt.figures import BRANCH_COLOURS, INK, MUTED, OTHER_COLOURS, RULE

KINDS = {
    "method": ("methods", "o", np.divide(BRANCH_COLOURS["spatial"], 255)),
    "ablation": ("ablations", "s", np.divide(OTHER_COLOURS[0], 255)),
    "control": ("controls", "^", np.divide(OTHER_COLOURS[1], 255)),
    "sweep": ("sweeps", "v", np.divide(OTHER_COLOURS[3], 255)),
}
OURS_COLOUR = np.divide(BRANCH_COLOURS["temporal"], 255)


def scatter(summary: Mapping[str, object]) -> np.ndarray:
    """A point for each method, with its intervals, over a logarithmic time axis; uint8 (H', W', 3).

    A method without a time or a fidelity (all its cells failed) has no point.
    """
    figure = Figure(figsize=(8.4, 5.2), dpi=120, facecolor="white", layout="constrained")
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    shown = set()
    for name, it in summary["methods"].items():
        found = [as_estimate(it["estimates"].get(measure)) for measure in ("seconds", "motion_fidelity")]
        if None in found:
            continue
        label, marker, colour = KINDS[it["kind"]]
        colour = OURS_COLOUR if name == OURS else colour
        at = [one.mean for one in found]
        bars = [[[one.mean - one.low], [one.high - one.mean]] if one.low is not None else None for one in found]
        axes.errorbar(*at, yerr=bars[1], xerr=bars[0], color=colour, linewidth=0.9, alpha=0.5, zorder=2)
        legend = None if name == OURS or it["kind"] in shown else label
        axes.scatter(*at, color=[colour], marker=marker, s=90 if name == OURS else 42, zorder=3, label=legend)
        if legend is not None:
            shown.add(it["kind"])
        bold = {"fontweight": "bold"} if name == OURS else {}
        axes.annotate(
            it["title"], at, (6, 5), textcoords="offset points", fontsize=8, color=np.divide(INK, 255),
            parse_math=False, **bold,
        )  # fmt: skip
    ink, rule = np.divide(MUTED, 255), np.divide(RULE, 255)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds from the reference's file to one video (logarithmic)", color=ink)
    axes.set_ylabel("motion fidelity", color=ink)
    axes.set_title(f"{summary['suite']}: {summary['clips']} clips", loc="left", fontsize=12, fontweight="bold",
                   color=np.divide(INK, 255), parse_math=False)  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(rule)
    axes.tick_params(colors=ink, which="both", length=0)
    axes.grid(color=rule, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(0.12)
    if shown:
        figure.legend(loc="outside lower center", ncols=4, frameon=False, labelcolor=ink)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]
