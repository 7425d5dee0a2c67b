"""What a user has to be told of a clip's results, because no single number shows it: one line for each matter."""

from collections.abc import Sequence

from effivmt.evaluation.metrics import MetricRow, mean_metrics
from effivmt.pipeline.reconstruction import KEPT

COMPARED = "two_sided_motion_fidelity"
GAIN = 0.05
"""An adapter is better than none where its mean fidelity is higher by more than this; differences of methods over 24
clips have intervals of ±0.035 (docs/comparison.md)."""


def notices(
    psnr: float, rows: Sequence[MetricRow], *, compared: tuple[str, str] = ("the adapter", "no adapter")
) -> tuple[str, ...]:
    """The notices of a clip that its autoencoder gives back with `psnr` (dB), and of the metrics of its videos.

    compared: what made the videos, and what made those that they are compared with.
    """
    return (*_little_kept(psnr), *_no_gain(rows, *compared))


def _little_kept(psnr: float) -> list[str]:
    if psnr >= KEPT:
        return []
    return [
        f"this backbone keeps little of this clip: its autoencoder gives it back with {psnr:.1f} dB, below {KEPT:g} "
        "dB; results will show little of its motion"
    ]


def _no_gain(rows: Sequence[MetricRow], ours: str, theirs: str) -> list[str]:
    """Empty also where no video was rendered without the adapter, or the motion of either could not be measured."""
    compared = [row for row in rows if "baseline" in row]
    with_it, without = (mean_metrics(row[kind] for row in compared).get(COMPARED) for kind in ("adapter", "baseline"))
    if with_it is None or without is None or with_it > without + GAIN:
        return []
    return [
        f"{ours} is not better than {theirs}: two-sided motion fidelity {with_it:.3f} with it, {without:.3f} without"
    ]
