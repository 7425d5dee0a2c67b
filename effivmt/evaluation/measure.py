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
    """The models that metrics are measured with: CLIP (None leaves its metrics out), and a point tracker."""

    scorer: ClipScorer | None
    tracker: Tracker


def load_metric_models(scorer: Path | None, tracker: Path | None) -> MetricModels:
    """Loads the CLIP model of a folder (None: none), and CoTracker from a checkpoint (None: Lucas-Kanade).

    Raises BackboneError where one cannot be used.
    """
    return MetricModels(None if scorer is None else ClipScorer(scorer), CoTracker(tracker) if tracker else track)


def measure(
    reference: np.ndarray,
    generated: np.ndarray,
    prompt: str,
    models: MetricModels,
    *,
    caption: str | None = None,
    reference_features: np.ndarray | None = None,
) -> dict[str, float | None]:
    """All metrics of one video, frames uint8 (T, H, W, 3), against the reference's frames and its own prompt.

    `caption` says what the reference shows; without it the appearance leakage is left out. The background leakage is
    left out where the reference's background is plain; those of CLIP, without a scorer, and those of the prompt where
    it is empty. `reference_features` are the scorer's of the reference's frames, where they are known, so that several
    videos of one reference share them. None: not measurable, because nothing can be tracked, or the reference has no
    edges. BackboneError where the scorer's features are not finite.
    """
    metrics: dict[str, float | None] = {
        **vars(compare_motion(reference, generated, models.tracker)),
        "sharpness": sharpness(reference, generated),
        "flicker": flicker(generated),
    }
    if (leaked := background_leakage(reference, generated)) is not None:
        metrics["background_leakage"] = leaked
    if (scorer := models.scorer) is not None:
        features = scorer.frame_features(generated)
        prompt_features = scorer.text_features([prompt]) if prompt else None
        if prompt_features is not None:
            metrics["text_similarity"] = text_similarity(features, prompt_features)
        metrics["temporal_consistency"] = temporal_consistency(features)
        known = scorer.frame_features(reference) if reference_features is None else reference_features
        metrics["reference_resemblance"] = reference_resemblance(features, known)
        if caption is not None and prompt_features is not None:
            shown = scorer.text_features([caption])
            metrics["appearance_leakage"] = appearance_leakage(features, shown, prompt_features)
    if wrong := [name for name, value in metrics.items() if value is not None and not math.isfinite(value)]:
        raise BackboneError(f"the scorer or the tracker gives a {wrong[0]} that is not finite: its weights are damaged")
    return {name: None if value is None else round(float(value), 6) for name, value in metrics.items()}
