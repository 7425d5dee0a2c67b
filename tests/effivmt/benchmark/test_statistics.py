"""Intervals over clips cover the truth, differences are paired, and the same values give the same answer."""

import numpy as np
import pytest

from effivmt.benchmark.statistics import Estimate, difference, estimate


def clips(values: np.ndarray) -> dict[str, list[float]]:
    """Values (clips, videos) by clip."""
    return {f"clip{i}": list(own) for i, own in enumerate(values)}


def test_a_clip_counts_once_however_many_videos_it_has() -> None:
    found = estimate({"a": [1.0, 1.0, 1.0, 1.0], "b": [0.0], "c": []})
    assert (found.mean, found.clips) == (0.5, 2)


def test_the_same_values_give_the_same_interval() -> None:
    values = clips(np.random.default_rng(1).random((9, 3)))
    assert estimate(values) == estimate(values)
    found = estimate(values)
    assert found.low < found.mean < found.high


def test_one_clip_says_nothing_of_others() -> None:
    assert estimate({"a": [0.25, 0.75]}) == Estimate(0.5, None, None, 1)
    assert estimate({"a": []}) is None and estimate({}) is None
    assert not Estimate(0.5, None, None, 1).excludes_zero


def test_the_interval_covers_the_true_mean() -> None:
    """24 clips of three videos that share most of their spread; nominal 95 %, here a little less."""
    random, hits, trials = np.random.default_rng(0), 0, 200
    for _ in range(trials):
        values = 0.3 + random.normal(size=(24, 1)) + 0.2 * random.normal(size=(24, 3))
        found = estimate(clips(values))
        hits += found.low <= 0.3 <= found.high
    assert 0.88 <= hits / trials <= 0.985


def test_videos_of_a_clip_do_not_narrow_the_interval() -> None:
    """Copies of a clip's video are no new evidence."""
    values = np.random.default_rng(0).normal(size=(12, 1))
    once, often = estimate(clips(values)), estimate(clips(np.repeat(values, 10, axis=1)))
    assert (once.low, once.high) == pytest.approx((often.low, often.high))


def test_a_difference_is_paired() -> None:
    """Clips differ by much, the methods on each of them by little: only the pairs show it."""
    random = np.random.default_rng(0)
    level = 10 * random.normal(size=12)
    theirs = {f"clip{i}": {p: level[i] + p for p in range(3)} for i in range(12)}
    ours = {clip: {p: value + 0.1 + 0.02 * random.normal() for p, value in own.items()} for clip, own in theirs.items()}
    found = difference(ours, theirs)
    assert found.mean == pytest.approx(0.1, abs=0.02) and found.excludes_zero and found.low > 0
    back = difference(theirs, ours)
    assert (back.mean, back.low, back.high) == pytest.approx((-found.mean, -found.high, -found.low))
    unpaired = estimate({clip: list(own.values()) for clip, own in ours.items()})
    assert unpaired.high - unpaired.low > 50 * (found.high - found.low)


def test_what_only_one_has_is_left_out() -> None:
    ours = {"a": {1: 3.0, 2: 100.0}, "b": {1: 1.0}, "only ours": {1: 50.0}}
    theirs = {"a": {1: 2.0}, "b": {1: 1.0, 2: -50.0}, "only theirs": {1: 7.0}}
    found = difference(ours, theirs)
    assert (found.mean, found.clips) == (0.5, 2)
    assert difference(ours, {"c": {1: 1.0}}) is None
