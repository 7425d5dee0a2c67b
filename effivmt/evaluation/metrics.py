"""The metrics: their labels and explanations in the order in which they are shown, the rows that hold them, means."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import NotRequired, TypedDict


@dataclass(frozen=True)
class Metric:
    """How a metric is shown; `better` is "higher", "lower", or "" where neither is."""

    label: str
    better: str
    meaning: str


KINDS = {"adapter": "with adapter", "baseline": "without adapter"}
"""The videos that are measured for a prompt and seed: the key of their metrics in a `MetricRow`, and their label."""


class MetricRow(TypedDict):
    """A row of metrics.json: one prompt and seed, and metric -> value of the video with and without the adapter.

    None: not measurable.
    """

    prompt: str
    seed: int
    adapter: Mapping[str, float | None]
    baseline: NotRequired[Mapping[str, float | None]]


def ordered(names: Iterable[str]) -> list[str]:
    """The names, each once, in the order in which metrics are shown: those of `METRICS`, then others by name."""
    given = set(names)
    return [*(name for name in METRICS if name in given), *sorted(given - METRICS.keys())]


def mean_metrics(rows: Iterable[Mapping[str, float | None]]) -> dict[str, float]:
    """Mean of each metric over the rows in which it could be measured, in the order in which the metrics first appear.

    A metric that no row has, or only as None, is left out.
    """
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                values.setdefault(name, []).append(value)
    return {name: fmean(found) for name, found in values.items()}


def finite_metrics(row: Mapping[str, float | None]) -> dict[str, float]:
    """The metrics of a row that have a finite value."""
    return {name: value for name, value in row.items() if value is not None and math.isfinite(value)}


METRICS = {
    "text_similarity": Metric(
        "Text similarity",
        "higher",
        "How well the frames show what the prompt says: CLIP's cosine between prompt and frame, mean over frames. Of a "
        "long prompt CLIP reads the beginning alone, mostly 77 tokens.",
    ),
    "temporal_consistency": Metric(
        "Temporal consistency",
        "higher",
        "How alike neighbouring frames look to CLIP. A frozen video scores best: read it with the amount of motion.",
    ),
    "motion_fidelity": Metric(
        "Motion fidelity",
        "higher",
        "How well the directions of tracked points match those of the reference, from -1 (opposite) to 1 (same). "
        "It ignores position and speed.",
    ),
    "two_sided_motion_fidelity": Metric(
        "Motion fidelity, two-sided",
        "higher",
        "Motion fidelity in both directions, so that a motion of the reference that is missing counts too.",
    ),
    "foreground_motion_fidelity": Metric(
        "Motion fidelity, foreground",
        "higher",
        "Two-sided motion fidelity of what moves against the ground, so that a still background cannot decide it.",
    ),
    "trajectory_error": Metric(
        "Trajectory error",
        "lower",
        "Mean distance of tracked points from the nearest path in the other video, both ways, in frame widths, "
        "from 0 to 1. It takes position and speed into account.",
    ),
    "appearance_leakage": Metric(
        "Appearance leakage",
        "lower",
        "How much nearer the frames are to the reference's caption than to their own prompt: the difference of CLIP's "
        "cosines, mean over frames. Below 0 the prompt has won.",
    ),
    "reference_resemblance": Metric(
        "Resemblance to the reference",
        "lower",
        "CLIP's cosine between the frames and the reference's at the same times. It also sees looks that the caption "
        "does not name. Place and pose count too, so it is never 0: compare it only among results of the same clip and "
        "prompt.",
    ),
    "background_leakage": Metric(
        "Background leakage",
        "lower",
        "How much of the pattern of the reference's background shows in the result at the same place, under a moving "
        "camera also at the same time, whatever its colours: 0 nothing, 1 all of it. Left out where the reference's "
        "background is plain.",
    ),
    "sharpness": Metric(
        "Sharpness",
        "higher",
        "How steep the edges are for their contrast, over those of the reference: 1 is as sharp, below 1 blurrier. "
        "Noise has edges too: read it with the flicker.",
    ),
    "flicker": Metric(
        "Flicker",
        "lower",
        "Change from frame to frame that motion does not explain, after warping along optical flow, as a share of the "
        "range of gray levels. A clean moving video has little, a frozen one none: read it with the amount of motion.",
    ),
    "motion_amount": Metric(
        "Amount of motion",
        "",
        "How far the moving points travel from one frame to the next, in frame widths. Near 0 the video stands still.",
    ),
    "reference_motion_amount": Metric(
        "Amount of motion, reference", "", "The same of the reference: what the amount of motion should be near to."
    ),
    "reconstruction_psnr": Metric(
        "Reference kept, dB",
        "",
        "How well the backbone's autoencoder gives the reference itself back: peak signal-to-noise ratio. Below 25 dB "
        "the backbone keeps little of the clip, whatever the adapter. Nothing is said of the result.",
    ),
}
