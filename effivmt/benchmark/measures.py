"""What a comparison measures: the metrics of the videos, and the cost of making them."""

from collections.abc import Iterable

from effivmt.evaluation import metrics
from effivmt.evaluation.metrics import METRICS, Metric

COSTS = {
    "seconds": Metric(
        "Time, s",
        "lower",
        "From the reference's file to the video: reading and encoding it, tuning, and rendering one video. Recorded "
        "when the work was done, on the machine that did it.",
    ),
    "preparing_seconds": Metric("Before rendering, s", "lower", "What of it is spent once for a clip."),
    "rendering_seconds": Metric("Rendering, s", "lower", "What of it is spent on each video."),
    "processor_seconds": Metric(
        "Processor time, s",
        "lower",
        "The same of the processor, all threads added up. Other work on the machine does not make it longer.",
    ),
    "peak_bytes": Metric(
        "Peak memory, MB",
        "lower",
        "Most resident memory of the process at work, with everything it holds, libraries and models included.",
    ),
}
MEASURES = METRICS | COSTS


def ordered(names: Iterable[str]) -> list[str]:
    """Measures in the order in which tables show them: metrics, unknown ones by name, costs."""
    given = set(names)
    return [*metrics.ordered(given - COSTS.keys()), *(name for name in COSTS if name in given)]
