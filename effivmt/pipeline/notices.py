"""What a user has to be told of a clip's results, because no single number shows it: one line for each matter."""

from collections.abc import Sequence

from effivmt.evaluation.metrics import MetricRow, mean_metrics
from effivmt.pipeline.reconstruction import KEPT

COMPARED = "two_sided_motion_fidelity"
GAIN = 0.05
"""An adapter is better than none where its mean fidelity is higher by more than this; differences of methods over 24
clips have intervals of ±0.035 (docs/comparison.md)."""


def notices(psnr: float, rows: Sequence[MetricRow]) -> tuple[str, ...]:
    """The notices of a clip that its autoencoder gives back with `psnr` (dB), and of the metrics of its videos."""
    return (*_little_kept(psnr), *_no_gain(rows))


def _little_kept(psnr: float) -> list[str]:
    if psnr >= KEPT:
        return []
    return [
        f"this backbone keeps little of this clip: its autoencoder gives it back with {psnr:.1f} dB, below {KEPT:g} "
        "dB; results will show little of its motion"
    ]


def _no_gain(rows: Sequence[MetricRow]) -> list[str]:
    """Empty also where no video was rendered without the adapter, or the motion of either could not be measured."""
    compared = [row for row in rows if "baseline" in row]
    ours, theirs = (mean_metrics(row[kind] for row in compared).get(COMPARED) for kind in ("adapter", "baseline"))
    if ours is None or theirs is None or ours > theirs + GAIN:
        return []
    return [
        f"the adapter is not better than no adapter: two-sided motion fidelity {ours:.3f} with it, {theirs:.3f} without"
    ]
