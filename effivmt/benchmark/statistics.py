"""Means and paired differences with 95 % intervals over clips.

The videos of a clip share its motion and its tuning, so they are not independent. The sampling unit is the clip: each
clip counts with the mean of its own values, and the bootstrap resamples clips (cluster bootstrap, percentile interval).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypedDict

import numpy as np

DRAWS = 10_000
"""Bootstrap resamples; with so many an interval's ends vary by less than 1 % of its width between seeds."""
LEVEL = 0.95
"""Confidence level of the intervals."""
Values = Mapping[str, Mapping[tuple[str, int], float]]
"""Values of one measure by clip, and within a clip by prompt and seed."""


class EstimateRecord(TypedDict):
    """An `Estimate` as results.json holds it."""

    mean: float
    low: float | None
    high: float | None
    clips: int


@dataclass(frozen=True)
class Estimate:
    """A mean over clips and its interval, which is None for fewer than two clips: one clip shows no spread."""

    mean: float
    low: float | None
    high: float | None
    clips: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def record(self) -> EstimateRecord:
        """The estimate as results.json holds it."""
        return EstimateRecord(mean=self.mean, low=self.low, high=self.high, clips=self.clips)


def as_estimate(record: EstimateRecord | None) -> Estimate | None:
    """The estimate of a record; None for None."""
    return None if record is None else Estimate(**record)


def clip_means(values: Mapping[str, Sequence[float]]) -> np.ndarray:
    """The mean of each clip's own values, float64 (clips,), in the clips' order; clips without values are left out."""
    return np.array([np.mean(own) for own in values.values() if len(own)], dtype=np.float64)


def estimate(values: Mapping[str, Sequence[float]]) -> Estimate | None:
    """The mean of `clip_means` with its interval; None where no clip has a value.

    Deterministic: the resamples depend on the number of clips alone.
    """
    means = clip_means(values)
    if not len(means):
        return None
    low, high = _interval(means) if len(means) > 1 else (None, None)
    return Estimate(float(means.mean()), low, high, len(means))


def difference(ours: Values, theirs: Values) -> Estimate | None:
    """The estimate of `ours` - `theirs`, paired by clip, prompt and seed; values without a partner are left out."""
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
    """Share of each clip in each resample, float64 (DRAWS, clips)."""
    return np.random.default_rng(0).multinomial(clips, np.full(clips, 1 / clips), size=DRAWS) / clips
