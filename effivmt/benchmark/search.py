"""The same small search for every peer: three values of its main knob, on clips that are in no suite.

The authors' values are among them. MotionDirector takes as many steps, of as many samples, as EffiVMT's temporal stage
does on the embedded backbone, since its authors' 300 steps of one are for a far larger one. EffiVMT's own values are
those of the params file.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from effivmt.benchmark.cells import Done, Job
from effivmt.benchmark.methods import METHODS
from effivmt.benchmark.peers import peer_params
from effivmt.catalog import Clip
from effivmt.placing import replacing, writing

_TIMES = (1, 5, 25)
CANDIDATES: dict[str, tuple[dict[str, object], ...]] = {
    "motion_director": tuple({"steps": 400, "batch": 4, "learning_rate": round(5e-4 * by, 6)} for by in (1, 2.5, 6)),
    "ditflow": tuple({"learning_rates": [0.002 * by, 0.001 * by]} for by in _TIMES),
    "smm": tuple({"learning_rates": [round(0.007 * by, 6), 0.004 * by]} for by in _TIMES),
    "flow_motion": tuple({"learning_rate": 0.003 * by} for by in _TIMES),
}
"""By maker, the values of its section of peers.yaml."""
GOOD = ("two_sided_motion_fidelity", "text_similarity")
"""The sum of these, mean over clips, decides: the motion must be followed and the prompt kept."""


def plan(clips: Sequence[Clip], params: Path, overrides: Sequence[str]) -> list[Job]:
    """A job for each candidate and clip. ParamsError names a field of the params that is wrong."""
    methods = {method.maker: method for method in METHODS.values() if method.maker in CANDIDATES}
    return [
        Job(methods[maker], methods[maker].params(params, overrides), clip, peer_params(maker, {maker: candidate}))
        for maker, candidates in CANDIDATES.items()
        for candidate in candidates
        for clip in clips
    ]


def choose(done: Sequence[Done]) -> list[dict[str, object]]:
    """A row for each candidate in their order: {maker, values, score, chosen}; the highest score of a maker is chosen.

    A score is None, and its candidate never chosen, where a cell failed.
    """
    rows = []
    for maker, candidates in CANDIDATES.items():
        own = [_row(maker, candidate, done) for candidate in candidates]
        scored = [row for row in own if row["score"] is not None]
        best = max(scored, key=lambda row: row["score"]) if scored else None
        rows += [row | {"chosen": row is best} for row in own]
    return rows


def write_chosen(path: Path, rows: Sequence[Mapping[str, object]], about: str) -> None:
    """Writes peers.yaml: the chosen values, and as comments every score."""
    lines = [f"# {about}", f"# Score: {' + '.join(name.replace('_', ' ') for name in GOOD)}, mean over clips."]
    for row in rows:
        score = "failed" if row["score"] is None else f"{row['score']:.3f}"
        lines.append(f"# {row['maker']} {json.dumps(row['values'])}: {score}{' (chosen)' if row['chosen'] else ''}")
    chosen = {row["maker"]: row["values"] for row in rows if row["chosen"]}
    text = "\n".join(lines) + "\n" + yaml.safe_dump(chosen, sort_keys=False)
    with writing(path.parent), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _row(maker: str, candidate: Mapping[str, object], done: Sequence[Done]) -> dict[str, object]:
    params = peer_params(maker, {maker: candidate})
    own = [one for one in done if one.job.method.maker == maker and one.job.peer == params]
    failed = not own or any(one.errors for one in own)
    score = None if failed else float(np.mean([_score(one) for one in own]))
    return {"maker": maker, "values": dict(candidate), "score": score}


def _score(done: Done) -> float:
    return float(np.mean([sum(cell.metrics[name] for name in GOOD) for cell in done.cells]))
