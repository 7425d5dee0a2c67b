"""The paper's claims, each confirmed, refuted or left undecided by one comparison's intervals.

Every claim is a lower bound on one estimate, with the sign that makes more better: a value of EffiVMT, or its advantage
over another method on the same cells. It is confirmed where the whole interval lies at or above the bound, refuted
where it lies below, and undecided otherwise (also with one clip, which has no interval).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypedDict

from effivmt.benchmark.measures import MEASURES
from effivmt.benchmark.methods import METHODS, OURS
from effivmt.benchmark.statistics import Estimate, EstimateRecord, Values, difference, estimate

LITTLE = 0.02
"""A difference in motion fidelity or text similarity that counts as none."""
FASTER = 2.84
"""Processor time without sparse sampling over that with it (paper, table 2: 2068 s over 727 s)."""
FAR = 0.2
"""A difference in motion fidelity that counts as large."""


@dataclass(frozen=True)
class Claim:
    """`first` is better in `measure` than every one of `others` by at least `bound`.

    Without others the bound is on the value itself, in the measure's unit. With `times` the claim is that `first` takes
    at least `bound` times as much as the others, whichever direction is better.
    """

    text: str
    measure: str
    first: str = OURS
    others: tuple[str, ...] = ()
    bound: float = 0.0
    times: bool = False


class ClaimRecord(TypedDict):
    """The verdict on a claim, as results.json holds it.

    `estimate` is `first` less `other`, or `first` over `other` where `times`, or the value of `first` where `other` is
    None. Claims that are not tested have neither.
    """

    claim: str
    measure: str
    first: str
    times: bool
    verdict: str
    other: str | None
    estimate: EstimateRecord | None


_PEERS = tuple(
    name for name, method in METHODS.items() if method.kind == "method" and method.maker != "backbone" and name != OURS
)
"""Methods that transfer motion. The backbone alone is none: it sees no reference, so it cannot leak from one."""
CLAIMS = (
    Claim("EffiVMT has the highest motion fidelity", "motion_fidelity", others=_PEERS),
    Claim("EffiVMT has the highest two-sided motion fidelity", "two_sided_motion_fidelity", others=_PEERS),
    Claim("EffiVMT has the highest foreground motion fidelity", "foreground_motion_fidelity", others=_PEERS),
    Claim("EffiVMT has the least trajectory error", "trajectory_error", others=_PEERS),
    Claim("EffiVMT leaks the reference's appearance least", "appearance_leakage", others=_PEERS),
    Claim("EffiVMT leaks the reference's background least", "background_leakage", others=_PEERS),
    Claim(
        f"EffiVMT's text similarity is not below any other's by {LITTLE} or more",
        "text_similarity",
        others=_PEERS,
        bound=-LITTLE,
    ),
    Claim("EffiVMT takes at most DiTFlow's processor time", "processor_seconds", others=("ditflow",)),
    Claim("EffiVMT's motion fidelity is at least 0.95", "motion_fidelity", bound=0.95),
    Claim(
        f"EffiVMT's motion fidelity is above the backbone's by {FAR} or more",
        "motion_fidelity",
        others=("backbone",),
        bound=FAR,
    ),
    Claim("Without decoupling motion fidelity drops", "motion_fidelity", others=("without-decoupling",)),
    Claim("Without decoupling more appearance leaks", "appearance_leakage", others=("without-decoupling",)),
    Claim("Without decoupling more of the background leaks", "background_leakage", others=("without-decoupling",)),
    Claim("Without adaptive RoPE motion fidelity drops", "motion_fidelity", others=("without-adaptive-rope",)),
    Claim(
        "Without adaptive RoPE motion fidelity drops (pixel frames)",
        "motion_fidelity",
        first="pixel-paper",
        others=("pixel-none",),
    ),
    Claim(
        f"Without sparse sampling it takes at least {FASTER} times the processor time",
        "processor_seconds",
        first="dense",
        others=(OURS,),
        bound=FASTER,
        times=True,
    ),
    Claim(
        f"Without sparse sampling motion fidelity gains less than {LITTLE}",
        "motion_fidelity",
        others=("dense",),
        bound=-LITTLE,
    ),
)
CONFIRMED, REFUTED, UNDECIDED, UNTESTED = "confirmed", "refuted", "undecided", "not tested"


def judge_claims(values: Callable[[str, str], Values]) -> list[ClaimRecord]:
    """A verdict for each claim.

    values(method, measure) gives the values of the run, empty where it has none. A claim about several methods is
    confirmed where each of those that ran confirms it, and refuted where one refutes it; its `other` and `estimate` are
    those of the method that speaks most against it.
    """
    return [_judge(claim, values) for claim in CLAIMS]


def _judge(claim: Claim, values: Callable[[str, str], Values]) -> ClaimRecord:
    first = values(claim.first, claim.measure)
    estimates: dict[str | None, Estimate] = {}
    for other in claim.others or (None,):
        found = _estimate(claim, first, None if other is None else values(other, claim.measure))
        if found is not None:
            estimates[other] = found
    if not estimates:
        return _record(claim, UNTESTED, None, None)
    verdicts = {other: _verdict(claim, found) for other, found in estimates.items()}
    rank = (REFUTED, UNDECIDED, CONFIRMED)
    worst = min(estimates, key=lambda other: (rank.index(verdicts[other]), _gain(claim, estimates[other]).mean))
    return _record(claim, verdicts[worst], worst, estimates[worst])


def _record(claim: Claim, verdict: str, other: str | None, found: Estimate | None) -> ClaimRecord:
    return ClaimRecord(
        claim=claim.text,
        measure=claim.measure,
        first=claim.first,
        times=claim.times,
        verdict=verdict,
        other=other,
        estimate=None if found is None else found.record,
    )


def _estimate(claim: Claim, first: Values, other: Values | None) -> Estimate | None:
    if other is None:
        return estimate({clip: list(own.values()) for clip, own in first.items()})
    if not claim.times:
        return difference(first, other)
    found = difference(_logarithms(first), _logarithms(other))
    return found and _mapped(found, math.exp)


def _verdict(claim: Claim, found: Estimate) -> str:
    gain = _gain(claim, found)
    if gain.low is None or gain.high is None:
        return UNDECIDED
    return CONFIRMED if gain.low >= claim.bound else REFUTED if gain.high < claim.bound else UNDECIDED


def _gain(claim: Claim, found: Estimate) -> Estimate:
    """The estimate with the sign that makes more better."""
    if claim.times or MEASURES[claim.measure].better == "higher":
        return found
    negated = _mapped(found, lambda value: -value)
    return replace(negated, low=negated.high, high=negated.low)


def _mapped(found: Estimate, function: Callable[[float], float]) -> Estimate:
    low, high = (None if end is None else function(end) for end in (found.low, found.high))
    return Estimate(function(found.mean), low, high, found.clips)


def _logarithms(values: Values) -> Values:
    return {clip: {key: math.log(value) for key, value in own.items()} for clip, own in values.items()}
