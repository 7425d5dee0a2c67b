"""What a comparison found: a row a cell, and their means, intervals and paired differences by method."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from effivmt.benchmark.cells import Cell, JobResult
from effivmt.benchmark.claims import judge_claims
from effivmt.benchmark.measures import COSTS, MEASURES
from effivmt.benchmark.methods import OURS, Method
from effivmt.benchmark.statistics import DRAWS, LEVEL, Estimate, difference, estimate
from effivmt.evaluation.metrics import METRICS

Row = Mapping[str, object]


@dataclass(frozen=True)
class RunInfo:
    """What was run: the suite, the backbone (id, digest), the code (version, Git commit) and how many workers."""

    suite: str
    backbone: str
    backbone_digest: str
    version: str
    commit: str | None
    workers: int


def row_of(done: JobResult, cell: Cell, unsaid: bool | None) -> dict[str, object]:
    """The flat row of one cell; `unsaid`: the clip has looks that its caption does not name, None: not known."""
    return {
        "method": cell.method,
        "kind": done.job.method.kind,
        "clip": cell.clip,
        "class": done.job.clip.group,
        "unsaid": unsaid,
        "prompt": cell.prompt,
        "seed": cell.seed,
        "error": cell.error,
        **(cell.metrics or {}),
        "seconds": cell.seconds,
        "preparing_seconds": cell.preparing_seconds,
        "rendering_seconds": cell.rendering_seconds,
        "processor_seconds": cell.processor_seconds,
        "peak_bytes": cell.peak_bytes,
        "adapter": cell.adapter and cell.adapter.key,
        "video": cell.video and cell.video.key,
    }


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes results.parquet."""
    text, number, flag = pa.string(), pa.float64(), pa.bool_()
    first = {name: text for name in ("method", "kind", "clip", "class")}
    first |= {"unsaid": flag, "prompt": text, "seed": pa.int64(), "error": text}
    last = {name: number for name in COSTS if name != "peak_bytes"}
    last |= {"peak_bytes": pa.int64(), "adapter": text, "video": text}
    names = {name for row in rows for name in row} - first.keys() - last.keys()
    schema = first | {name: number for name in _ordered(names)} | last
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=pa.schema(schema)), path)


def summarise(about: RunInfo, methods: Sequence[Method], rows: Sequence[Row]) -> dict[str, object]:
    """What results.json holds: of each method its estimates, differences, and estimates by class and by unsaid looks.

    An estimate is {mean, low, high, clips}; `differences` maps the method that was subtracted to its estimates; claims
    are those of `judge_claims`.
    """
    measures = _ordered({name for row in rows for name in row if name in MEASURES or _is_metric(row, name)})
    by_method = {method.name: [row for row in rows if row["method"] == method.name] for method in methods}
    classes = list(dict.fromkeys(row["class"] for row in rows if row["class"] is not None))
    looks = {"said": False, "unsaid": True} if any(row["unsaid"] is not None for row in rows) else {}
    described = {}
    for method in methods:
        own = by_method[method.name]
        others = [name for name in dict.fromkeys((OURS, method.against)) if name != method.name and name in by_method]
        described[method.name] = {
            "title": method.title,
            "kind": method.kind,
            "overrides": list(method.overrides),
            "against": method.against,
            "cells": len(own),
            "failed": sum(bool(row["error"]) for row in own),
            "estimates": _estimates(own, measures),
            "differences": {other: _differences(own, by_method[other], measures) for other in others},
            "by_class": {name: _estimates((r for r in own if r["class"] == name), measures) for name in classes},
            "by_looks": {
                name: _estimates((r for r in own if r["unsaid"] is it), measures) for name, it in looks.items()
            },
        }
    return {
        **asdict(about),
        "clips": len({row["clip"] for row in rows}),
        "prompts": len({(row["clip"], row["prompt"]) for row in rows}),
        "seeds": len({row["seed"] for row in rows}),
        "level": LEVEL,
        "draws": DRAWS,
        "claims": judge_claims(lambda name, measure: _by_clip(by_method.get(name, []), measure)),
        "methods": described,
        "failures": _failures(rows),
    }


def _estimates(rows: Iterable[Row], measures: Sequence[str]) -> dict[str, dict[str, object]]:
    rows = list(rows)
    found = {
        name: estimate({clip: list(own.values()) for clip, own in _by_clip(rows, name).items()}) for name in measures
    }
    return {name: asdict(one) for name, one in found.items() if one is not None}


def _differences(rows: Sequence[Row], others: Sequence[Row], measures: Sequence[str]) -> dict[str, dict[str, object]]:
    found = {name: difference(_by_clip(rows, name), _by_clip(others, name)) for name in measures}
    return {name: asdict(one) for name, one in found.items() if one is not None}


def _by_clip(rows: Iterable[Row], measure: str) -> dict[str, dict[tuple[str, int], float]]:
    """Values of one measure by clip, and there by prompt and seed; rows without it are left out."""
    values: dict[str, dict[tuple[str, int], float]] = {}
    for row in rows:
        if (value := row.get(measure)) is not None:
            values.setdefault(row["clip"], {})[row["prompt"], row["seed"]] = value
    return values


def _failures(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Method, clip, error and number of cells of every failure."""
    counts: dict[tuple[str, str, str], int] = {}
    for row in rows:
        if row["error"]:
            key = (row["method"], row["clip"], row["error"])
            counts[key] = counts.get(key, 0) + 1
    return [{"method": m, "clip": c, "error": e, "cells": count} for (m, c, e), count in counts.items()]


def as_estimate(values: Mapping[str, object] | None) -> Estimate | None:
    """An estimate as `summarise` writes it."""
    return None if values is None else Estimate(**values)


def _is_metric(row: Row, name: str) -> bool:
    return isinstance(row[name], float)


def _ordered(names: Iterable[str]) -> list[str]:
    """Measures in the order in which they are shown; unknown ones by name before the costs."""
    known = list(METRICS), list(COSTS)
    rest = sorted(set(names) - MEASURES.keys())
    return [name for name in (*known[0], *rest, *known[1]) if name in set(names)]
