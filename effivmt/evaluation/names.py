"""How the metrics are called and explained wherever they are shown, in their order."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: `better` is "higher", "lower" or "" where neither end is better."""

    label: str
    better: str
    meaning: str


METRICS = {
    "text_similarity": Metric(
        "Text similarity",
        "higher",
        "How well the frames show what the prompt says: CLIP's cosine between prompt and frame, mean over frames.",
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
        "It sees neither place nor speed.",
    ),
    "two_sided_motion_fidelity": Metric(
        "Motion fidelity, two-sided",
        "higher",
        "Motion fidelity asked both ways, so that a motion of the reference that is missing counts too.",
    ),
    "foreground_motion_fidelity": Metric(
        "Motion fidelity, foreground",
        "higher",
        "Two-sided motion fidelity of what moves against the ground, so that a still background cannot decide it.",
    ),
    "trajectory_error": Metric(
        "Trajectory error",
        "lower",
        "Mean distance between the paths of matched objects, in frame widths, from 0 to 1. It sees place and speed.",
    ),
    "motion_amount": Metric(
        "Amount of motion",
        "",
        "How far the moving points travel from one frame to the next, in frame widths. Near 0 the video stands still.",
    ),
    "reference_motion_amount": Metric(
        "Amount of motion, reference", "", "The same of the reference: what the amount of motion should be near to."
    ),
}
