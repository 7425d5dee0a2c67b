"""Means and differences with 95 % intervals over clips.

Videos of one clip share its motion and its tuning, so the clip, not the video, is what is drawn: each clip counts with
the mean of its own values, and the bootstrap draws clips with replacement (cluster bootstrap, percentile interval).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

DRAWS = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over clips and its interval; None for fewer than two clips, which say nothing of others."""

    mean: float
    low: float | None
    high: float | None
    clips: int

    @property
    def excludes_zero(self) -> bool:
        """The interval lies on one side of 0."""
        return self.low is not None and (self.low > 0 or self.high < 0)


def estimate(values: Mapping[str, Sequence[float]]) -> Estimate | None:
    """The mean over clips of each clip's own mean, with its interval; `values` by clip, None where there are none.

    Deterministic: the same number of clips draws the same clips.
    """
    means = np.array([np.mean(own) for own in values.values() if len(own)], dtype=np.float64)
    if not len(means):
        return None
    low, high = _interval(means) if len(means) > 1 else (None, None)
    return Estimate(float(means.mean()), low, high, len(means))


def difference(
    ours: Mapping[str, Mapping[object, float]], theirs: Mapping[str, Mapping[object, float]]
) -> Estimate | None:
    """The estimate of `ours` - `theirs`, paired: by clip and, within a clip, by prompt and seed (the inner key).

    What only one of them has is left out.
    """
    pairs = {
        clip: [own[key] - theirs[clip][key] for key in own if key in theirs[clip]]
        for clip, own in ours.items()
        if clip in theirs
    }
    return estimate(pairs)


def _interval(means: np.ndarray) -> tuple[float, float]:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(_draws(len(means)) @ means, [tail, 1 - tail])
    return float(low), float(high)


@cache
def _draws(clips: int) -> np.ndarray:
    """Share of each clip in each draw, float64 (DRAWS, clips)."""
    return np.random.default_rng(0).multinomial(clips, np.full(clips, 1 / clips), size=DRAWS) / clips
