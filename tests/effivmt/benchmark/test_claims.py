"""A claim is confirmed only where the whole interval bears it out, and one rival that contradicts it refutes it."""

import numpy as np
import pytest

from effivmt.benchmark.claims import CLAIMS, CONFIRMED, REFUTED, UNDECIDED, UNTESTED, judge_claims
from effivmt.benchmark.measures import MEASURES
from effivmt.benchmark.methods import METHODS

HIGHEST = "EffiVMT has the highest motion fidelity"
LEAST = "EffiVMT has the least trajectory error"
FIDELITY = "EffiVMT's motion fidelity is at least 0.95"
SPARSE = "Without sparse sampling it takes at least 2.84 times the processor time"


def verdicts(values: dict[tuple[str, str], list[float]]) -> dict[str, dict[str, object]]:
    """Verdicts by claim, from one value a clip for each method and measure."""
    found = judge_claims(
        lambda method, measure: {f"clip{i}": {0: v} for i, v in enumerate(values.get((method, measure), []))}
    )
    return {it["claim"]: it for it in found}


def test_claims_name_what_the_benchmark_has() -> None:
    for claim in CLAIMS:
        assert {claim.first, *claim.others} <= METHODS.keys()
        assert MEASURES[claim.measure].better in ("higher", "lower")
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)


def test_without_the_methods_nothing_is_said() -> None:
    assert {it["verdict"] for it in verdicts({}).values()} == {UNTESTED}


@pytest.mark.parametrize(
    ("smm", "ditflow", "verdict", "against"),
    [
        ([0.5, 0.4, 0.6], [0.2, 0.3, 0.1], CONFIRMED, "smm"),
        ([0.5, 0.4, 0.6], [0.9, 0.95, 0.99], REFUTED, "ditflow"),
        ([0.9, 0.5, 0.8], [0.2, 0.3, 0.1], UNDECIDED, "smm"),
    ],
)
def test_first_among_all_that_ran(smm: list[float], ditflow: list[float], verdict: str, against: str) -> None:
    ours = [0.8, 0.7, 0.85]
    found = verdicts(
        {("effivmt", "motion_fidelity"): ours, ("smm", "motion_fidelity"): smm, ("ditflow", "motion_fidelity"): ditflow}
    )[HIGHEST]
    assert (found["verdict"], found["other"]) == (verdict, against)
    rival = smm if against == "smm" else ditflow
    assert found["estimate"]["mean"] == pytest.approx(np.mean(ours) - np.mean(rival))


def test_the_backbone_alone_is_no_rival_but_a_floor() -> None:
    found = verdicts({("effivmt", "motion_fidelity"): [0.5, 0.6], ("backbone", "motion_fidelity"): [0.1, 0.2]})
    assert found[HIGHEST]["verdict"] == UNTESTED
    assert found["EffiVMT's motion fidelity is above the backbone's by 0.2 or more"]["verdict"] == CONFIRMED


def test_lower_is_better_is_turned() -> None:
    less, more = [0.1, 0.12, 0.09], [0.3, 0.25, 0.31]
    for ours, rival, verdict in ((less, more, CONFIRMED), (more, less, REFUTED)):
        found = verdicts({("effivmt", "trajectory_error"): ours, ("smm", "trajectory_error"): rival})[LEAST]
        assert found["verdict"] == verdict
        assert found["estimate"]["mean"] == pytest.approx(np.mean(ours) - np.mean(rival))


def test_a_value_against_its_bound() -> None:
    for values, verdict in (([0.97, 0.99], CONFIRMED), ([0.5, 0.9], REFUTED), ([0.5, 0.99], UNDECIDED)):
        found = verdicts({("effivmt", "motion_fidelity"): values})[FIDELITY]
        assert (found["verdict"], found["other"]) == (verdict, None)


def test_a_ratio_of_times() -> None:
    values = {("dense", "processor_seconds"): [60.0, 90.0, 33.0], ("effivmt", "processor_seconds"): [20, 30, 10]}
    found = verdicts(values)[SPARSE]
    assert found["verdict"] == CONFIRMED
    assert found["estimate"]["mean"] == pytest.approx((3 * 3 * 3.3) ** (1 / 3))
    values["dense", "processor_seconds"] = [20, 30, 10]
    assert verdicts(values)[SPARSE]["verdict"] == REFUTED


def test_one_clip_decides_nothing() -> None:
    found = verdicts({("effivmt", "motion_fidelity"): [0.99]})[FIDELITY]
    assert found["verdict"] == UNDECIDED and found["estimate"]["low"] is None
