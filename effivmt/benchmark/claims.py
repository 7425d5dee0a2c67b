"""The paper's claims, each confirmed, refuted or left undecided by one comparison's intervals.

Every claim is a lower bound on one estimate, taken in the direction that is better: a value of EffiVMT, or what it has
over another method on the same cells. It is confirmed where the whole interval lies at or above the bound, refuted
where it lies below, undecided otherwise (or with one clip, which has no interval).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from effivmt.benchmark.measures import MEASURES
from effivmt.benchmark.methods import METHODS, OURS
from effivmt.benchmark.statistics import Estimate, difference, estimate

Values = Mapping[str, Mapping[object, float]]
"""Values of one measure, by clip and there by prompt and seed."""
LITTLE = 0.02
"""A difference in motion fidelity or text similarity that counts for nothing."""
FAR = 0.2
"""A difference in motion fidelity that no one overlooks."""


@dataclass(frozen=True)
class Claim:
    """`first` has at least `bound` more of what is good in `measure` than every one of `others`.

    Without others the value itself is meant, in the measure's unit. `times`: `first` takes at least `bound` times as
    much as the others, whichever is better.
    """

    text: str
    measure: str
    first: str = OURS
    others: tuple[str, ...] = ()
    bound: float = 0.0
    times: bool = False


_PEERS = tuple(name for name, it in METHODS.items() if it.kind == "method" and it.maker != "backbone" and name != OURS)
"""Methods that transfer motion: the backbone alone sees no reference, so it has nothing to leak."""
_PAPER = "pixel-paper"
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
    Claim(
        "Without adaptive RoPE motion fidelity drops (pixel frames)",
        "motion_fidelity",
        first=_PAPER,
        others=("pixel-none",),
    ),
    Claim(
        "Without adaptive RoPE motion fidelity drops (latent frames)",
        "motion_fidelity",
        first="latent",
        others=("latent-none",),
    ),
    Claim(
        "Without sparse sampling it takes at least 2.8 times the processor time",
        "processor_seconds",
        first="dense",
        others=(_PAPER,),
        bound=2.8,
        times=True,
    ),
    Claim(
        f"Without sparse sampling motion fidelity gains less than {LITTLE}",
        "motion_fidelity",
        first=_PAPER,
        others=("dense",),
        bound=-LITTLE,
    ),
)
CONFIRMED, REFUTED, UNDECIDED, UNTESTED = "confirmed", "refuted", "undecided", "not tested"


def judge_claims(values: Callable[[str, str], Values]) -> list[dict[str, object]]:
    """A verdict for each claim: {claim, measure, verdict, first, other, estimate}.

    values(method, measure) gives what the run has, empty where it has nothing. A claim about several methods is
    confirmed by all that ran together and refuted by any one. `estimate` (first less other, or first over other where
    the claim is of a ratio, or first's own value) is of the `other` that speaks most against the claim.
    """
    return [_judge(claim, values) for claim in CLAIMS]


def _judge(claim: Claim, values: Callable[[str, str], Values]) -> dict[str, object]:
    first = values(claim.first, claim.measure)
    found: dict[str | None, Estimate] = {}
    for other in claim.others or (None,):
        one = _estimate(claim, first, None if other is None else values(other, claim.measure))
        if one is not None:
            found[other] = one
    head = {"claim": claim.text, "measure": claim.measure, "first": claim.first, "times": claim.times}
    if not found:
        return head | {"verdict": UNTESTED, "other": None, "estimate": None}
    verdicts = {other: _verdict(claim, one) for other, one in found.items()}
    rank = (REFUTED, UNDECIDED, CONFIRMED)
    worst = min(found, key=lambda other: (rank.index(verdicts[other]), _gain(claim, found[other]).mean))
    return head | {"verdict": verdicts[worst], "other": worst, "estimate": asdict(found[worst])}


def _estimate(claim: Claim, first: Values, other: Values | None) -> Estimate | None:
    if other is None:
        return estimate({clip: list(own.values()) for clip, own in first.items()})
    if not claim.times:
        return difference(first, other)
    found = difference(_logarithms(first), _logarithms(other))
    return found and _mapped(found, math.exp)


def _verdict(claim: Claim, found: Estimate) -> str:
    gain = _gain(claim, found)
    if gain.low is None:
        return UNDECIDED
    return CONFIRMED if gain.low >= claim.bound else REFUTED if gain.high < claim.bound else UNDECIDED


def _gain(claim: Claim, found: Estimate) -> Estimate:
    """The estimate in the direction that is better."""
    if claim.times or MEASURES[claim.measure].better == "higher":
        return found
    turned = _mapped(found, lambda value: -value)
    return replace(turned, low=turned.high, high=turned.low)


def _mapped(found: Estimate, function: Callable[[float], float]) -> Estimate:
    ends = (None if end is None else function(end) for end in (found.low, found.high))
    return Estimate(function(found.mean), *ends, found.clips)


def _logarithms(values: Values) -> Values:
    return {clip: {key: math.log(value) for key, value in own.items()} for clip, own in values.items()}
