"""All metrics of one video, and the models that measure them."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from effivmt.errors import BackboneError
from effivmt.evaluation.background import background_leakage
from effivmt.evaluation.cotracker import CoTracker
from effivmt.evaluation.motion import compare_motion
from effivmt.evaluation.quality import flicker, sharpness
from effivmt.evaluation.similarity import (
    ClipScorer,
    appearance_leakage,
    reference_resemblance,
    temporal_consistency,
    text_similarity,
)
from effivmt.evaluation.tracks import Tracker, track


@dataclass(frozen=True)
class MetricModels:
    """The models that metrics are measured with: CLIP, and a point tracker."""

    scorer: ClipScorer
    tracker: Tracker


def load_metric_models(scorer: Path, tracker: Path | None) -> MetricModels:
    """Loads the CLIP model of a folder, and CoTracker from a checkpoint (None: Lucas-Kanade).

    Raises BackboneError where one cannot be used.
    """
    return MetricModels(ClipScorer(scorer), CoTracker(tracker) if tracker else track)


def measure(
    reference: np.ndarray, generated: np.ndarray, prompt: str, models: MetricModels, *, caption: str | None = None
) -> dict[str, float | None]:
    """All metrics of one video, frames uint8 (T, H, W, 3), against the reference's frames and its own prompt.

    `caption` says what the reference shows; without it the appearance leakage is left out. The background leakage is
    left out where the reference has no still, patterned background. None: not measurable, because nothing can be
    tracked, or the reference has no edges. BackboneError where the scorer's features are not finite.
    """
    scorer = models.scorer
    features, prompt_features = scorer.frame_features(generated), scorer.text_features([prompt])
    metrics: dict[str, float | None] = {
        "text_similarity": text_similarity(features, prompt_features),
        "temporal_consistency": temporal_consistency(features),
        **vars(compare_motion(reference, generated, models.tracker)),
        "reference_resemblance": reference_resemblance(features, scorer.frame_features(reference)),
        "sharpness": sharpness(reference, generated),
        "flicker": flicker(generated),
    }
    if (leaked := background_leakage(reference, generated)) is not None:
        metrics["background_leakage"] = leaked
    if caption is not None:
        metrics["appearance_leakage"] = appearance_leakage(features, scorer.text_features([caption]), prompt_features)
    if wrong := [name for name, value in metrics.items() if value is not None and not math.isfinite(value)]:
        raise BackboneError(f"the scorer or the tracker gives a {wrong[0]} that is not finite: its weights are damaged")
    return {name: None if value is None else round(float(value), 6) for name, value in metrics.items()}
