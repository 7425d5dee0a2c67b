"""The terminal side of the command line: progress on stderr while a run lasts, tables on stdout at its end."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from effivmt.catalog import Catalog
from effivmt.evaluation.metrics import METRICS
from effivmt.pipeline.catalog_run import CatalogWatch, Outcome
from effivmt.pipeline.outputs import Outputs
from effivmt.pipeline.plan import plan_clip
from effivmt.pipeline.stages import STAGES
from effivmt.pipeline.transfer import UNWATCHED, StageRun, Transferred, Watch
from effivmt.pipeline.workspace import Workspace
from effivmt.report.run_report import PAGE
from effivmt_flows.cli.plain import NumberedLines, results_console


@contextmanager
def watching(*, quiet: bool) -> Iterator[Watch]:
    """Shows the stages on stderr while the context lasts: bars on a terminal, else lines; nothing when quiet."""
    if quiet:
        yield UNWATCHED
    elif not sys.stderr.isatty():
        yield StageLines()
    else:
        with StageBars() as bars:
            yield bars


@contextmanager
def waiting(message: str, *, quiet: bool) -> Iterator[None]:
    """Tells on stderr what the context waits for: a spinner that goes, or a line."""
    if quiet:
        yield
    elif not sys.stderr.isatty():
        print(message, file=sys.stderr, flush=True)
        yield
    else:
        with Console(stderr=True).status(message):
            yield


class StageLines(Watch):
    """One plain line at the start and at the end of every stage."""

    def started(self, stage: str) -> None:
        """Prints the stage."""
        print(f"{stage}: started", file=sys.stderr, flush=True)

    def finished(self, run: StageRun) -> None:
        """Prints the stage and its seconds."""
        print(f"{run.stage}: {_outcome(run)} in {run.seconds:.1f} s", file=sys.stderr, flush=True)


class StageBars(Watch):
    """One bar a stage, with the time that is left."""

    def __init__(self) -> None:
        """Draws on stderr, once entered."""
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
        )

    def __enter__(self) -> "StageBars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def started(self, stage: str) -> None:
        """Adds the stage's bar, of unknown length."""
        self._bars[stage] = self._progress.add_task(stage, total=None, note="left")

    def advanced(self, stage: str, done: int, total: int) -> None:
        """Moves the stage's bar."""
        if stage in self._bars:
            self._progress.update(self._bars[stage], completed=done, total=total)

    def finished(self, run: StageRun) -> None:
        """Fills the stage's bar."""
        bar = self._bars[run.stage]
        total = self._progress.tasks[bar].total or 1
        self._progress.update(bar, completed=total, total=total, note=_outcome(run))


class ClipLines(CatalogWatch):
    """One plain line a clip."""

    def __init__(self, total: int) -> None:
        """For a catalog of `total` clips."""
        self._lines = NumberedLines(total)

    def ended(self, outcome: Outcome) -> None:
        """Prints the clip's outcome."""
        note = f": {outcome.stage}: {outcome.reason}" if outcome.reason else ""
        self._lines.ended(f"{outcome.clip}: {outcome.status} in {outcome.seconds:.1f} s{note}")


class ClipBars(CatalogWatch):
    """A bar for the catalog, with the time that is left, and one for the stage at work."""

    def __init__(self, total: int) -> None:
        """Draws on stderr, once entered."""
        self._progress = Progress(
            TextColumn("{task.description:<32}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=Console(stderr=True),
        )
        self._clips = self._progress.add_task("clips", total=total)
        self._stage = self._progress.add_task("", total=None)
        self._clip = ""

    def __enter__(self) -> "ClipBars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def began(self, clip: str) -> None:
        """Names the clip."""
        self._clip = clip

    def started(self, stage: str) -> None:
        """Empties the stage's bar."""
        self._progress.reset(self._stage, description=f"{self._clip}: {stage}"[:32], total=None)

    def advanced(self, stage: str, done: int, total: int) -> None:
        """Moves the stage's bar."""
        self._progress.update(self._stage, completed=done, total=total)

    def ended(self, outcome: Outcome) -> None:
        """Moves the catalog's bar; a failure gets a line above it."""
        self._progress.advance(self._clips)
        if outcome.reason:
            self._progress.console.print(
                f"{outcome.clip}: {outcome.stage}: {outcome.reason}", style="red", markup=False
            )


@contextmanager
def watching_catalog(total: int, *, quiet: bool) -> Iterator[CatalogWatch]:
    """Shows the clips on stderr while the context lasts: bars on a terminal, else lines; nothing when quiet."""
    if quiet:
        yield CatalogWatch()
    elif not sys.stderr.isatty():
        yield ClipLines(total)
    else:
        with ClipBars(total) as bars:
            yield bars


def print_plan(work: Workspace, catalog: Catalog) -> None:
    """Prints what a run would do with every clip and stage, and the reasons."""
    console = results_console()
    table = Table(title="What a run would do", title_justify="left")
    for heading in ("clip", *STAGES):
        table.add_column(heading, overflow="fold")
    reasons = []
    for clip in catalog.clips:
        planned = plan_clip(work, clip)
        table.add_row(escape(clip.clip), *(step.action for step in planned))
        reasons += [f"{clip.clip}: {step.stage}: {step.why}" for step in planned if step.action in ("to do", "fails")]
    console.print(table)
    for reason in reasons:
        console.print(reason, soft_wrap=True, markup=False)


def print_run(record: Mapping[str, object], ran: Catalog, out: Path, *, quiet: bool) -> None:
    """Prints how many clips were hits, done or failed, and the table of the failures."""
    console = results_console()
    names = {clip.clip for clip in ran.clips}
    failed = [row for row in record["clips"] if row["status"] == "failed" and row["clip"] in names]
    if failed:
        table = Table(title="Failed", title_justify="left")
        for heading in ("clip", "stage", "reason"):
            table.add_column(heading, overflow="fold")
        for row in failed:
            table.add_row(*(escape(row[name]) for name in ("clip", "stage", "reason")))
        console.print(table)
    if not quiet:
        counts = ", ".join(f"{record[status]} {status}" for status in ("done", "hit", "failed"))
        console.print(f"{counts} in {record['seconds']:.1f} s", soft_wrap=True)
        if (out / PAGE).is_file():  # a single stage has none
            console.print(f"report {out / PAGE}", soft_wrap=True, markup=False)
    console.print(str(out), soft_wrap=True, markup=False)


def print_transfer(result: Transferred, outputs: Outputs) -> None:
    """Prints the stages with their seconds, the metrics of every video, and where its files lie."""
    console = results_console()
    stages = Table(title="Stages", title_justify="left")
    stages.add_column("stage")
    stages.add_column("outcome")
    stages.add_column("seconds", justify="right")
    for run in result.runs:
        stages.add_row(run.stage, _outcome(run), f"{run.seconds:.1f}")
    console.print(stages)
    for row, video in zip(result.metrics, outputs.videos, strict=True):
        kinds = {"with adapter": row["adapter"]}
        if "baseline" in row:
            kinds["without adapter"] = row["baseline"]
        console.print(metrics_table(f"{video.name}: {row['prompt']}", kinds))
    for name in ("videos", "sheet", "heads", "metrics", "adapter", "report"):
        place = getattr(outputs, name)
        for path in place if isinstance(place, tuple) else (place,):
            console.print(f"{name:<8} {path}", soft_wrap=True, markup=False)


def metrics_table(title: str, columns: Mapping[str, Mapping[str, float]]) -> Table:
    """A table with a row for each metric and a column for each named set of them."""
    table = Table(title=escape(title), title_justify="left")
    table.add_column("metric")
    table.add_column("better")
    for heading in columns:
        table.add_column(heading, justify="right")
    order = list(METRICS)
    for name in sorted(next(iter(columns.values())), key=lambda n: order.index(n) if n in METRICS else len(order)):
        known = METRICS.get(name)
        values = [f"{metrics[name]:.3f}" if name in metrics else "" for metrics in columns.values()]
        table.add_row(known.label if known else name, known.better if known else "", *values)
    return table


def _outcome(run: StageRun) -> str:
    return "hit" if run.cached else "done"
