"""The same small search for every method that has a knob: four values of it, on clips that are in no suite.

The authors' values are among them. A first search tried three: the fourth lies beyond the best of those where that was
the lowest or the highest. MotionDirector takes as many steps, of as many samples, as EffiVMT's temporal stage does on
the embedded backbone, since its authors' 300 steps of one are for a far larger one. What is found for a peer goes to
peers.yaml; what is found for EffiVMT is for the params file, where its other values stand.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import harmonic_mean

import numpy as np
import yaml

from effivmt.benchmark.cells import Done, Job
from effivmt.benchmark.methods import METHODS, OURS
from effivmt.benchmark.peers import PEERS, peer_params
from effivmt.catalog import Clip
from effivmt.evaluation.metrics import METRICS
from effivmt.store.files import atomic_write, write_errors

CANDIDATES: dict[str, tuple[dict[str, object], ...]] = {
    OURS: tuple({"heads.alpha": alpha} for alpha in (1.25, 2.0, 4.0, 8.0)),
    "motion_director": tuple(
        {"steps": 400, "batch": 4, "learning_rate": rate} for rate in (1e-4, 5e-4, 2.5e-3, 1.25e-2)
    ),
    "ditflow": tuple({"learning_rates": [2 * last, last]} for last in (1e-3, 5e-3, 0.025, 0.125)),
    "smm": tuple(
        {"learning_rates": list(rates)} for rates in ((1.4e-3, 8e-4), (7e-3, 4e-3), (0.035, 0.02), (0.175, 0.1))
    ),
    "flow_motion": tuple({"learning_rate": rate} for rate in (6e-4, 3e-3, 0.015, 0.075)),
}
"""By maker, the values of its section of peers.yaml, or for EffiVMT those of the params file."""
GOOD = ("two_sided_motion_fidelity", "text_similarity")
"""The harmonic mean of these (each first averaged over prompts and clips) decides: the motion must be followed and the
prompt be kept, and neither makes up for the other."""


def plan(clips: Sequence[Clip], params: str | Path | None, overrides: Sequence[str]) -> list[Job]:
    """A job for each candidate and clip, in that order. ParamsError names a field of the params that is wrong."""
    return [_job(maker, values, clip, params, overrides) for maker, values in _tried() for clip in clips]


def choose(done: Sequence[Done]) -> list[dict[str, object]]:
    """A row for each candidate in their order: {maker, values, means, score, chosen}.

    `done`: what came of the jobs of `plan`, in their order. `means` has those of `GOOD`. A maker's highest score is
    chosen. Means and score are None, and their candidate is never chosen, where a cell failed.
    """
    clips = len(done) // len(_tried())
    rows = []
    for number, (maker, values) in enumerate(_tried()):
        means = _means(done[number * clips : (number + 1) * clips])
        score = None if means is None else harmonic_mean([max(value, 0.0) for value in means.values()])
        rows.append({"maker": maker, "values": dict(values), "means": means, "score": score})
    best = []
    for maker in CANDIDATES:
        scored = [row for row in rows if row["maker"] == maker and row["score"] is not None]
        best += [max(scored, key=lambda row: row["score"])] if scored else []
    return [row | {"chosen": any(row is it for it in best)} for row in rows]


def write_chosen(path: Path, rows: Sequence[Mapping[str, object]], about: str) -> None:
    """Writes peers.yaml: the values chosen for the peers, and as comments every score."""
    good = "; ".join(METRICS[name].label for name in GOOD)
    lines = [f"# {about}", f"# Score: the harmonic mean of these, each averaged over prompts and clips: {good}."]
    for row in rows:
        score = "failed" if row["score"] is None else f"{row['score']:.3f} of {told(row['means'])}"
        lines.append(f"# {row['maker']} {json.dumps(row['values'])}: {score}{' (chosen)' if row['chosen'] else ''}")
    chosen = {row["maker"]: row["values"] for row in rows if row["chosen"] and row["maker"] in PEERS}
    text = "\n".join(lines) + "\n" + yaml.safe_dump(chosen, sort_keys=False)
    with write_errors(path.parent), atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def told(means: Mapping[str, float]) -> str:
    """The means that a score is of, as text: 0.412 and 0.680."""
    return " and ".join(f"{means[name]:.3f}" for name in GOOD)


def _tried() -> list[tuple[str, Mapping[str, object]]]:
    return [(maker, values) for maker, candidates in CANDIDATES.items() for values in candidates]


def _job(
    maker: str, values: Mapping[str, object], clip: Clip, params: str | Path | None, overrides: Sequence[str]
) -> Job:
    method = next(method for method in METHODS.values() if method.maker == maker)
    if maker in PEERS:
        return Job(method, method.params(params, overrides), clip, peer_params(maker, {maker: values}))
    own = (f"{name}={json.dumps(value)}" for name, value in values.items())
    return Job(method, method.params(params, (*overrides, *own)), clip)


def _means(done: Sequence[Done]) -> dict[str, float] | None:
    """Each of `GOOD`, over the prompts of each clip, then over the clips; None where a cell failed."""
    if any(one.errors for one in done):
        return None
    return {
        name: float(np.mean([np.mean([cell.metrics[name] for cell in one.cells]) for one in done])) for name in GOOD
    }
