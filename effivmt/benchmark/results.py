"""What a comparison found: a row for each cell, and means, intervals and paired differences by method."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

# pyarrow has neither annotations nor stubs
import pyarrow as pa
import pyarrow.parquet as pq

from effivmt.benchmark.cells import Cell, JobResult
from effivmt.benchmark.claims import ClaimRecord, judge_claims
from effivmt.benchmark.measures import COSTS, MEASURES, ordered
from effivmt.benchmark.methods import OURS, Method
from effivmt.benchmark.settings import Setting
from effivmt.benchmark.statistics import DRAWS, LEVEL, EstimateRecord, difference, estimate

Estimates = dict[str, EstimateRecord]
"""Estimates by measure."""


@dataclass(frozen=True)
class RunInfo:
    """What was run: the suite, the backbone (id, digest), the code (version, Git commit), workers, the settings."""

    suite: str
    backbone: str
    backbone_digest: str
    version: str
    commit: str | None
    workers: int
    settings: Mapping[str, Setting]


@dataclass(frozen=True)
class Row:
    """One cell as a row of results.parquet.

    group: the clip's class; unsaid: whether the clip has looks that its caption does not name, None where unknown;
    metrics and costs by name, None where not measurable; adapter, video: keys of artifacts. A failed cell has an
    `error` and no metrics; so has one that the method cannot make, for the reason `cannot`.
    """

    method: str
    kind: str
    clip: str
    group: str | None
    unsaid: bool | None
    prompt: str
    seed: int
    error: str
    cannot: str
    metrics: Mapping[str, float | None]
    costs: Mapping[str, float | None]
    adapter: str | None
    video: str | None

    def value(self, measure: str) -> float | None:
        """The value of a metric or cost; None where the row has none."""
        return self.costs[measure] if measure in self.costs else self.metrics.get(measure)

    @property
    def columns(self) -> dict[str, str | float | bool | None]:
        """The row as results.parquet holds it."""
        return {
            "method": self.method,
            "kind": self.kind,
            "clip": self.clip,
            "class": self.group,
            "unsaid": self.unsaid,
            "prompt": self.prompt,
            "seed": self.seed,
            "error": self.error,
            "cannot": self.cannot,
            **self.metrics,
            **self.costs,
            "adapter": self.adapter,
            "video": self.video,
        }


class Refusal(TypedDict):
    """Why a method cannot make the videos of some clips, of these classes, and how many cells those are."""

    reason: str
    clips: list[str]
    classes: list[str]
    cells: int


class MethodSummary(TypedDict):
    """What results.json holds of one method.

    cells, failed: counts of its cells; differences: its estimates less those of each method that it is compared with;
    by_class, by_looks: its estimates over the clips of a class, and over the clips whose caption names every look
    (`said`) or does not (`unsaid`); cannot: only where there is something that it cannot do.
    """

    title: str
    kind: str
    overrides: list[str]
    against: str
    cells: int
    failed: int
    estimates: Estimates
    differences: dict[str, Estimates]
    by_class: dict[str, Estimates]
    by_looks: dict[str, Estimates]
    cannot: NotRequired[list[Refusal]]


class Failure(TypedDict):
    """One error of a method on a clip, and how many of its cells it spoiled."""

    method: str
    clip: str
    error: str
    cells: int


class Summary(TypedDict):
    """What results.json holds: the fields of `RunInfo`, the numbers of clips, prompts and seeds, and the results."""

    suite: str
    backbone: str
    backbone_digest: str
    version: str
    commit: str | None
    workers: int
    settings: dict[str, Setting]
    clips: int
    prompts: int
    seeds: int
    level: float
    draws: int
    claims: list[ClaimRecord]
    methods: dict[str, MethodSummary]
    failures: list[Failure]


def row_of(result: JobResult, cell: Cell, unsaid: bool | None) -> Row:
    """The row of one cell; `unsaid` as in `Row`."""
    return Row(
        method=cell.method,
        kind=result.job.method.kind,
        clip=cell.clip,
        group=result.job.clip.group,
        unsaid=unsaid,
        prompt=cell.prompt,
        seed=cell.seed,
        error=cell.error,
        cannot=cell.cannot,
        metrics=cell.metrics or {},
        costs={
            "seconds": cell.seconds,
            "preparing_seconds": cell.preparing_seconds,
            "rendering_seconds": cell.rendering_seconds,
            "processor_seconds": cell.processor_seconds,
            "peak_bytes": cell.peak_bytes,
        },
        adapter=cell.adapter_key,
        video=cell.video_key,
    )


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes results.parquet: a column for each field, metric and cost; OSError where it cannot be written."""
    text, number, flag = pa.string(), pa.float64(), pa.bool_()
    first = {name: text for name in ("method", "kind", "clip", "class")}
    first |= {"unsaid": flag, "prompt": text, "seed": pa.int64(), "error": text, "cannot": text}
    last = {name: number for name in COSTS if name != "peak_bytes"}
    last |= {"peak_bytes": pa.int64(), "adapter": text, "video": text}
    metrics = ordered(name for row in rows for name in row.metrics)
    schema = pa.schema(first | {name: number for name in metrics} | last)
    pq.write_table(pa.Table.from_pylist([row.columns for row in rows], schema=schema), path)


def summarise(run: RunInfo, methods: Sequence[Method], rows: Sequence[Row]) -> Summary:
    """Estimates of each method: over all clips, by class and by looks, and its paired differences."""
    # A metric of a version to come may be a count or a flag: only numbers with a fraction have a mean.
    measures = ordered(
        name
        for row in rows
        for name, value in (*row.metrics.items(), *row.costs.items())
        if name in MEASURES or isinstance(value, float)
    )
    by_method = {method.name: [row for row in rows if row.method == method.name] for method in methods}
    classes = list(dict.fromkeys(row.group for row in rows if row.group is not None))
    looks = {"said": False, "unsaid": True} if any(row.unsaid is not None for row in rows) else {}
    summaries = {}
    for method in methods:
        own = by_method[method.name]
        others = [name for name in dict.fromkeys((OURS, method.against)) if name != method.name and name in by_method]
        summaries[method.name] = MethodSummary(
            title=method.title,
            kind=method.kind,
            overrides=list(method.overrides),
            against=method.against,
            cells=len(own),
            failed=sum(bool(row.error) for row in own),
            estimates=_estimates(own, measures),
            differences={other: _differences(own, by_method[other], measures) for other in others},
            by_class={name: _estimates([row for row in own if row.group == name], measures) for name in classes},
            by_looks={
                name: _estimates([row for row in own if row.unsaid is unsaid], measures)
                for name, unsaid in looks.items()
            },
        )
        if refusals := _refusals(own):
            summaries[method.name]["cannot"] = refusals
    return Summary(
        suite=run.suite,
        backbone=run.backbone,
        backbone_digest=run.backbone_digest,
        version=run.version,
        commit=run.commit,
        workers=run.workers,
        settings=dict(run.settings),
        clips=len({row.clip for row in rows}),
        prompts=len({(row.clip, row.prompt) for row in rows}),
        seeds=len({row.seed for row in rows}),
        level=LEVEL,
        draws=DRAWS,
        claims=judge_claims(lambda name, measure: _by_clip(by_method.get(name, []), measure)),
        methods=summaries,
        failures=_failures(rows),
    )


def _estimates(rows: Sequence[Row], measures: Sequence[str]) -> Estimates:
    found = {
        name: estimate({clip: list(own.values()) for clip, own in _by_clip(rows, name).items()}) for name in measures
    }
    return {name: one.record for name, one in found.items() if one is not None}


def _differences(rows: Sequence[Row], others: Sequence[Row], measures: Sequence[str]) -> Estimates:
    found = {name: difference(_by_clip(rows, name), _by_clip(others, name)) for name in measures}
    return {name: one.record for name, one in found.items() if one is not None}


def _by_clip(rows: Iterable[Row], measure: str) -> dict[str, dict[tuple[str, int], float]]:
    """Values of one measure by clip, and within a clip by prompt and seed; rows without a value are left out."""
    values: dict[str, dict[tuple[str, int], float]] = {}
    for row in rows:
        if (value := row.value(measure)) is not None:
            values.setdefault(row.clip, {})[row.prompt, row.seed] = value
    return values


def _failures(rows: Sequence[Row]) -> list[Failure]:
    counts: dict[tuple[str, str, str], int] = {}
    for row in rows:
        if row.error:
            key = (row.method, row.clip, row.error)
            counts[key] = counts.get(key, 0) + 1
    return [Failure(method=m, clip=c, error=e, cells=count) for (m, c, e), count in counts.items()]


def _refusals(rows: Sequence[Row]) -> list[Refusal]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.cannot:
            found.setdefault(row.cannot, []).append(row)
    return [
        Refusal(
            reason=reason,
            clips=list(dict.fromkeys(row.clip for row in own)),
            classes=list(dict.fromkeys(row.group for row in own if row.group is not None)),
            cells=len(own),
        )
        for reason, own in found.items()
    ]
