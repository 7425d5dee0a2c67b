"""The output of `bench`: a line or bar per job, and a table at the end."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from effivmt.benchmark.cells import JobResult
from effivmt.benchmark.markdown import number
from effivmt.benchmark.measures import MEASURES
from effivmt.benchmark.results import Summary
from effivmt.benchmark.search import CandidateResult, format_means
from effivmt_flows.cli.progress import NumberedLines
from effivmt_flows.cli.tables import results_console
from effivmt_flows.cli.terminal import open_console

SHOWN = ("motion_fidelity", "trajectory_error", "text_similarity", "appearance_leakage", "seconds")


@contextmanager
def job_progress(total: int, *, quiet: bool) -> Iterator[Callable[[JobResult], None]]:
    """Shows jobs on stderr as they end: a bar on a terminal, else lines; nothing when quiet."""
    if quiet:
        yield lambda _: None
    elif not sys.stderr.isatty():
        lines = NumberedLines(total)
        yield lambda done: lines.ended(_line(done))
    else:
        columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=open_console(stderr=True)) as progress:
            bar = progress.add_task("comparing", total=total)

            def on_job_end(done: JobResult) -> None:
                progress.update(bar, advance=1, description=f"{done.job.method.name}: {done.job.clip.clip}"[:40])
                if done.errors:
                    progress.console.print(_line(done), style="red", markup=False)

            yield on_job_end


def print_summary(summary: Summary, out: Path, *, quiet: bool) -> None:
    """Prints the means of the main measures, how many cells failed, and where the files are."""
    console = results_console()
    if not quiet:
        methods = summary["methods"].values()
        measures = [name for name in SHOWN if any(name in method["estimates"] for method in methods)]
        title = f"{escape(summary['suite'])}: means over {summary['clips']} clips; intervals in results.md"
        table = Table(title=title, title_justify="left")
        table.add_column("method")
        for name in measures:
            table.add_column(MEASURES[name].label, justify="right")
        for method in methods:
            means = [method["estimates"].get(name) for name in measures]
            texts = [number(n, m["mean"]) if m else "–" for n, m in zip(measures, means, strict=True)]
            table.add_row(method["title"], *texts)
        console.print(table)
        if failed := sum(failure["cells"] for failure in summary["failures"]):
            console.print(f"{failed} cells failed; reasons: {out / 'results.md'}", soft_wrap=True, markup=False)
        if refused := sum(it["cells"] for method in methods for it in method.get("cannot", [])):
            text = f"{refused} cells cannot be made by their method; reasons: {out / 'results.md'}"
            console.print(text, soft_wrap=True, markup=False)
        console.print(f"page {out / 'index.html'}", soft_wrap=True, markup=False)
    console.print(str(out), soft_wrap=True, markup=False)


def print_search(rows: Sequence[CandidateResult], peers: Path, *, quiet: bool) -> None:
    """Prints every candidate of a search with its score, and the file with those chosen for the peers."""
    console = results_console()
    if not quiet:
        table = Table("method", "values", "score", "of", "")
        for row in rows:
            values = ", ".join(f"{name}={value}" for name, value in row["values"].items())
            score = "failed" if row["score"] is None else f"{row['score']:.3f}"
            of = "" if row["means"] is None else format_means(row["means"])
            table.add_row(row["maker"], escape(values), score, of, "chosen" if row["chosen"] else "")
        console.print(table)
    console.print(str(peers), soft_wrap=True, markup=False)


def _line(done: JobResult) -> str:
    if done.errors:
        return f"{done.job.method.name}: {done.job.clip.clip}: failed: {'; '.join(done.errors)}"
    if done.cannot:
        return f"{done.job.method.name}: {done.job.clip.clip}: cannot: {done.cannot}"
    return f"{done.job.method.name}: {done.job.clip.clip}: {'hit' if done.cached else 'done'}"
