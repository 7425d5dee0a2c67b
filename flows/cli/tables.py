"""Results on stdout: tables of a plan, a run, a transfer and metrics."""

import os
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from effivmt.catalog import Catalog, list_faults, list_ignored
from effivmt.evaluation.metrics import KINDS, METRICS, ordered
from effivmt.pipeline.outcomes import RunSummary
from effivmt.pipeline.outputs import Outputs
from effivmt.pipeline.plan import plan_clip
from effivmt.pipeline.stages import MASK, STAGES
from effivmt.pipeline.transfer import TransferResult
from effivmt.pipeline.workspace import Workspace
from effivmt.report.run_report import PAGE
from effivmt_flows.cli.progress import status_of
from effivmt_flows.cli.terminal import open_console

_WIDTH = 160
"""Columns where stdout is no terminal: enough for every table."""
_FAILED_SHOWN = 50
"""A run's table lists at most this many failures; quarantine.csv has all."""
_NOTICES_SHOWN = 20
"""A run's table lists at most this many notices."""

_REMOVED_SHOWN = 20


def results_console() -> Console:
    """The console of stdout: as wide as the terminal, else as COLUMNS says, else wide enough for every table."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return open_console(highlight=False, width=None if known else _WIDTH)


def duration(seconds: float) -> str:
    """A time as text: "12.3 s", or from two minutes on "0:02:34"."""
    return f"{seconds:.1f} s" if seconds < 120 else str(timedelta(seconds=round(seconds)))


def moment(seconds: float) -> str:
    """A time since the epoch in this place's time: "2026-01-31 23:59"."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def print_plan(work: Workspace, catalog: Catalog) -> None:
    """Prints what a run would do with every clip and stage, and the reasons."""
    console = results_console()
    table = Table(title="What a run would do", title_justify="left")
    masked = (MASK,) if any(clip.chosen for clip in catalog.clips) else ()
    columns = (STAGES[0], *masked, *STAGES[1:])
    for heading in ("clip", *columns):
        table.add_column(heading, overflow="fold")
    reasons = []
    for clip in catalog.clips:
        planned = plan_clip(work, clip)
        actions = {step.stage: step.action for step in planned}
        table.add_row(escape(clip.clip), *(actions.get(stage, "") for stage in columns))
        reasons += [f"{clip.clip}: {step.stage}: {step.why}" for step in planned if step.action in ("to do", "fails")]
    console.print(table)
    for reason in reasons:
        console.print(reason, soft_wrap=True, markup=False)


def print_faults(catalog: Catalog) -> None:
    """Prints the faults of a catalog's rows and the columns that are ignored on stderr, a page at most."""
    if ignored := list_ignored(catalog):
        print(ignored, file=sys.stderr, flush=True)
    if catalog.faults:
        good = len(catalog.clips)
        print(f"{list_faults(catalog)}\n  {good} clip{'s' * (good != 1)} without a fault", file=sys.stderr, flush=True)


def print_run(summary: RunSummary, ran: Catalog, out: Path, *, quiet: bool) -> None:
    """Prints the clips of this run that failed, notices, the counts by status, and where the results are."""
    console = results_console()
    names = {clip.clip for clip in ran.clips} | {fault.clip for fault in ran.faults}
    failed = [outcome for outcome in summary.clips if outcome.status == "failed" and outcome.clip in names]
    if failed:
        table = Table(title="Failed", title_justify="left")
        for heading in ("clip", "stage", "reason"):
            table.add_column(heading, overflow="fold")
        for outcome in failed[:_FAILED_SHOWN]:
            table.add_row(*map(escape, (outcome.clip, outcome.stage, outcome.reason)))
        console.print(table)
        if len(failed) > _FAILED_SHOWN:
            console.print(f"and {len(failed) - _FAILED_SHOWN} more", soft_wrap=True)
    if summary.removed:
        gone, more = ", ".join(summary.removed[:_REMOVED_SHOWN]), len(summary.removed) - _REMOVED_SHOWN
        gone += f" and {more} more" if more > 0 else ""
        told = f"no longer in the catalog: {gone}; --delete-removed deletes their results"
        console.print(told, soft_wrap=True, markup=False)
    if not quiet:
        notices = [f"{it.clip}: {notice}" for it in summary.clips if it.clip in names for notice in it.notices]
        for line in notices[:_NOTICES_SHOWN]:
            console.print(line, style="yellow", soft_wrap=True, markup=False)
        if len(notices) > _NOTICES_SHOWN:
            console.print(f"and {len(notices) - _NOTICES_SHOWN} more notices; metrics.json of each clip has them")
        console.print(summary.counts, soft_wrap=True)
        if (out / PAGE).is_file():  # a single stage has none
            console.print(f"report {out / PAGE}", soft_wrap=True, markup=False)
    console.print(str(out), soft_wrap=True, markup=False)


def print_transfer(result: TransferResult, outputs: Outputs) -> None:
    """Prints the stages with their seconds, the metrics, notices, what was taken of the video, and all paths."""
    console = results_console()
    stages = Table(title="Stages", title_justify="left")
    stages.add_column("stage")
    stages.add_column("outcome")
    stages.add_column("seconds", justify="right")
    for run in result.runs:
        stages.add_row(run.stage, status_of(run), f"{run.seconds:.1f}")
    console.print(stages)
    for row, video in zip(result.metrics, outputs.videos, strict=True):
        labels = KINDS if result.motion else dict(zip(KINDS, result.labels, strict=True))
        kinds = {labels["adapter"]: row["adapter"]}
        if "baseline" in row:
            kinds[labels["baseline"]] = row["baseline"]
        console.print(metrics_table(f"{video.name}: {row['prompt']}", kinds))
    for notice in result.notices:
        console.print(f"{'notice':<8} {notice}", style="yellow", soft_wrap=True, markup=False)
    console.print(f"{'taken':<8} {result.excerpt.describe()}", soft_wrap=True, markup=False)
    paths = {
        "videos": outputs.videos,
        "sheet": (outputs.sheet,),
        "heads": (outputs.heads,) if result.classified else (),
        "metrics": (outputs.metrics,),
        "adapter": (outputs.adapter,) if result.motion else (),
        "report": (outputs.report,),
    }
    if result.motion is None:
        console.print(f"{'adapter':<8} none: this method tunes nothing", soft_wrap=True, markup=False)
    for name, group in paths.items():
        for path in group:
            console.print(f"{name:<8} {path}", soft_wrap=True, markup=False)


def metrics_table(title: str, columns: Mapping[str, Mapping[str, float | None]]) -> Table:
    """A table with a row for each metric and a column for each named set of them; "–" where one has no value."""
    table = Table(title=escape(title), title_justify="left")
    table.add_column("metric")
    table.add_column("better")
    for heading in columns:
        table.add_column(heading, justify="right")
    for name in ordered(next(iter(columns.values()))):
        known = METRICS.get(name)
        found = [metrics.get(name) for metrics in columns.values()]
        values = ["–" if value is None else f"{value:.3f}" for value in found]
        table.add_row(known.label if known else name, known.better if known else "", *values)
    return table
