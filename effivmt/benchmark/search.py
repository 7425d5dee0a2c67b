"""The same small search for every method with a main parameter: four values of it, on clips that are in no suite.

The authors' values are among them. A first search tried three values; where the best of them was the lowest or the
highest, the fourth lies beyond it. MotionDirector takes as many steps, of as many samples, as EffiVMT's temporal stage
takes on the embedded backbone: its authors' 300 steps of one sample are meant for a far larger model. The values chosen
for the peers go to peers.yaml; the value chosen for EffiVMT belongs in the params file.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import harmonic_mean
from typing import TypedDict

import yaml

from effivmt.benchmark.cells import Job, JobResult
from effivmt.benchmark.methods import METHODS, OURS
from effivmt.benchmark.peers import PEERS, peer_params
from effivmt.benchmark.statistics import clip_means
from effivmt.catalog import Clip
from effivmt.evaluation.metrics import METRICS, finite_metrics
from effivmt.store.disk_errors import write_errors
from effivmt.store.files import atomic_write

Candidate = Mapping[str, float | list[float]]
"""Values of a method's params, by name."""
CANDIDATES: dict[str, tuple[Candidate, ...]] = {
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
"""Candidates by maker: values of its section of peers.yaml, for EffiVMT those of the params file."""
SCORED_METRICS = ("two_sided_motion_fidelity", "text_similarity")
"""The score is the harmonic mean of these, each averaged over prompts and then clips, so that following the motion
cannot make up for losing the prompt, nor the other way round."""


class CandidateResult(TypedDict):
    """A candidate with the means of `SCORED_METRICS` and its score.

    Both are None where a cell failed, or has no motion that can be measured.
    """

    maker: str
    values: Candidate
    means: dict[str, float] | None
    score: float | None
    chosen: bool


def plan(clips: Sequence[Clip], params: str | Path | None, overrides: Sequence[str]) -> list[Job]:
    """A job for each candidate and clip, in that order. ParamsError names a field of the params that is wrong."""
    return [_job(maker, values, clip, params, overrides=overrides) for maker, values in _candidates() for clip in clips]


def choose(results: Sequence[JobResult]) -> list[CandidateResult]:
    """The results of all candidates in their order; each maker's candidate with the highest score is chosen.

    results: those of the jobs of `plan`, in their order. Where a cell failed, or could not be measured, the
    candidate is never chosen.
    """
    candidates = _candidates()
    clips = len(results) // len(candidates)
    rows: list[CandidateResult] = []
    best: dict[str, tuple[float, int]] = {}
    for number, (maker, values) in enumerate(candidates):
        means = _means(results[number * clips : (number + 1) * clips])
        # a negative mean, of motion the other way, has no harmonic mean: it counts as 0
        score = None if means is None else harmonic_mean([max(value, 0.0) for value in means.values()])
        rows.append(CandidateResult(maker=maker, values=dict(values), means=means, score=score, chosen=False))
        if score is not None and (maker not in best or score > best[maker][0]):
            best[maker] = (score, number)
    for _, number in best.values():
        rows[number]["chosen"] = True
    return rows


def write_chosen(path: Path, rows: Sequence[CandidateResult], about: str) -> None:
    """Writes peers.yaml: `about` and every score as comments, then the values chosen for the peers.

    Raises EffiVMTError where it cannot be written.
    """
    scored = "; ".join(METRICS[name].label for name in SCORED_METRICS)
    lines = [f"# {about}", f"# Score: the harmonic mean of these, each averaged over prompts and clips: {scored}."]
    for row in rows:
        means = row["means"]
        score = "failed" if means is None else f"{row['score']:.3f} of {format_means(means)}"
        lines.append(f"# {row['maker']} {json.dumps(row['values'])}: {score}{' (chosen)' if row['chosen'] else ''}")
    chosen = {row["maker"]: row["values"] for row in rows if row["chosen"] and row["maker"] in PEERS}
    text = "\n".join(lines) + "\n" + yaml.safe_dump(chosen, sort_keys=False)
    with write_errors(path.parent), atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def format_means(means: Mapping[str, float]) -> str:
    """The means that a score is made of, as text: "0.412 and 0.680"."""
    return " and ".join(f"{means[name]:.3f}" for name in SCORED_METRICS)


def _candidates() -> list[tuple[str, Candidate]]:
    """Maker and values of every candidate."""
    return [(maker, values) for maker, candidates in CANDIDATES.items() for values in candidates]


def _job(maker: str, values: Candidate, clip: Clip, params: str | Path | None, *, overrides: Sequence[str]) -> Job:
    method = next(method for method in METHODS.values() if method.maker == maker)
    if maker in PEERS:
        return Job(method, method.params(params, overrides), clip, peer_params(maker, {maker: values}))
    own = (f"{name}={json.dumps(value)}" for name, value in values.items())
    return Job(method, method.params(params, (*overrides, *own)), clip)


def _means(results: Sequence[JobResult]) -> dict[str, float] | None:
    """Each of `SCORED_METRICS`, averaged over the prompts of each clip and then over the clips; None as in the result.

    Leaving out what cannot be measured would favour a candidate whose videos show nothing.
    """
    metrics: dict[str, list[Mapping[str, float]]] = {}
    for result in results:
        for cell in result.cells:
            scores = finite_metrics(cell.metrics or {})  # only a failed cell has none
            if not scores.keys() >= set(SCORED_METRICS):
                return None
            metrics.setdefault(result.job.clip.clip, []).append(scores)
    return {
        name: float(clip_means({clip: [own[name] for own in cells] for clip, cells in metrics.items()}).mean())
        for name in SCORED_METRICS
    }
