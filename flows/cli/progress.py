"""Progress on stderr: bars on a terminal, else lines with the time that is left; nothing when quiet."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from effivmt.errors import DamageError
from effivmt.method.memory_choices import MemoryChoices
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.outcomes import ClipOutcome, StageRun
from effivmt_flows.cli.terminal import open_console, say


@contextmanager
def stage_progress(*, quiet: bool) -> Iterator[Callback]:
    """Shows the stages of one clip while the context lasts."""
    if quiet:
        yield Callback()
    elif not sys.stderr.isatty():
        yield StageLines()
    else:
        with StageBars() as bars:
            yield bars


@contextmanager
def clip_progress(total: int, *, quiet: bool) -> Iterator[Callback]:
    """Shows the clips of a catalog of `total` clips while the context lasts."""
    if quiet:
        yield Callback()
    elif not sys.stderr.isatty():
        yield ClipLines(total)
    else:
        with ClipBars(total) as bars:
            yield bars


@contextmanager
def waiting(message: str, *, quiet: bool) -> Iterator[None]:
    """Shows what the context waits for: a spinner on a terminal, else a line."""
    if quiet:
        yield
    elif not sys.stderr.isatty():
        say(message, sys.stderr)
        yield
    else:
        with open_console(stderr=True).status(message):
            yield


class NumberedLines:
    """Numbered lines on stderr, one per item that ends."""

    def __init__(self, total: int) -> None:
        """For `total` items, the first of which begins now."""
        self._done, self._total, self._begun = 0, total, time.monotonic()

    def ended(self, text: str) -> None:
        """Prints `[done/total] text` and an estimate of the time left, from the mean time of the items so far."""
        self._done += 1
        line = f"[{self._done}/{self._total}] {text}"
        if others := self._total - self._done:
            left = (time.monotonic() - self._begun) / self._done * others
            line += f"; about {timedelta(seconds=round(left))} left"
        say(line, sys.stderr)


def damage_notices(*, quiet: bool) -> Callback:
    """Tells on stderr of damage in the store, and of nothing else; of nothing at all when quiet."""
    return Callback() if quiet else DamageLines()


def say_scorer_fault(fault: str, *, quiet: bool) -> None:
    """Tells on stderr why there is no scorer, where there is none; of nothing at all when quiet."""
    if fault and not quiet:
        say(fault, sys.stderr)


def say_memory(choices: MemoryChoices, *, quiet: bool) -> None:
    """Tells on stderr what is done to fit into a GPU, where anything is; nothing when quiet."""
    if choices != MemoryChoices() and not quiet:
        say(f"to fit into memory: {choices.describe()}", sys.stderr)


class DamageLines(Callback):
    """One line for what was damaged, and for a tuning that diverged."""

    def on_damage(self, damage: DamageError) -> None:
        """Prints the file and its fault."""
        say(damage, sys.stderr)

    def on_divergence(self, notice: str) -> None:
        """Prints what the tuning does next."""
        say(notice, sys.stderr)


class StageLines(DamageLines):
    """One line at the start and at the end of every stage, and for what was damaged."""

    def on_stage_start(self, stage: str) -> None:
        """Prints the stage."""
        say(f"{stage}: started", sys.stderr)

    def on_stage_end(self, run: StageRun) -> None:
        """Prints the stage and its seconds."""
        say(f"{run.stage}: {status_of(run)} in {run.seconds:.1f} s", sys.stderr)


class StageBars(Callback):
    """One bar per stage, with the time left."""

    def __init__(self) -> None:
        """Shows the bars on stderr, once entered."""
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=open_console(stderr=True),
        )

    def __enter__(self) -> "StageBars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_stage_start(self, stage: str) -> None:
        """Adds the stage's bar, of unknown length; a stage that begins again has it already."""
        if stage in self._bars:
            self._progress.reset(self._bars[stage], total=None, note="left")
        else:
            self._bars[stage] = self._progress.add_task(stage, total=None, note="left")

    def on_stage_progress(self, stage: str, done: int, total: int) -> None:
        """Moves the stage's bar."""
        if stage in self._bars:
            self._progress.update(self._bars[stage], completed=done, total=total)

    def on_stage_end(self, run: StageRun) -> None:
        """Fills the stage's bar."""
        bar = self._bars[run.stage]
        total = self._progress.tasks[bar].total or 1
        self._progress.update(bar, completed=total, total=total, note=status_of(run))

    def on_damage(self, damage: DamageError) -> None:
        """Prints a line above the bars."""
        self._progress.console.print(str(damage), style="yellow", markup=False, soft_wrap=True)

    def on_divergence(self, notice: str) -> None:
        """Prints a line above the bars."""
        self._progress.console.print(notice, style="yellow", markup=False, soft_wrap=True)


class ClipLines(DamageLines):
    """One line per clip, and for what was damaged."""

    def __init__(self, total: int) -> None:
        """For a catalog of `total` clips."""
        self._lines = NumberedLines(total)

    def on_clip_end(self, outcome: ClipOutcome) -> None:
        """Prints the clip's outcome."""
        note = f": {outcome.stage}: {outcome.reason}" if outcome.reason else ""
        note += f": {outcome.taken}" if outcome.taken else ""
        self._lines.ended(f"{outcome.clip}: {outcome.status} in {outcome.seconds:.1f} s{note}")


class ClipBars(Callback):
    """A bar for the catalog, with the time left, and one for the current stage."""

    def __init__(self, total: int) -> None:
        """Shows the bars on stderr, once entered."""
        self._progress = Progress(
            TextColumn("{task.description:<32}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=open_console(stderr=True),
        )
        self._clips = self._progress.add_task("clips", total=total)
        self._stage = self._progress.add_task("", total=None)
        self._clip = ""

    def __enter__(self) -> "ClipBars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_clip_start(self, clip: str) -> None:
        """Names the clip."""
        self._clip = clip

    def on_stage_start(self, stage: str) -> None:
        """Empties the stage's bar."""
        self._progress.reset(self._stage, description=f"{self._clip}: {stage}"[:32], total=None)

    def on_stage_progress(self, stage: str, done: int, total: int) -> None:
        """Moves the stage's bar."""
        self._progress.update(self._stage, completed=done, total=total)

    def on_damage(self, damage: DamageError) -> None:
        """Prints a line above the bars."""
        self._progress.console.print(str(damage), style="yellow", markup=False, soft_wrap=True)

    def on_divergence(self, notice: str) -> None:
        """Prints a line above the bars."""
        self._progress.console.print(notice, style="yellow", markup=False, soft_wrap=True)

    def on_clip_end(self, outcome: ClipOutcome) -> None:
        """Moves the catalog's bar; a failure and a video that is too short get a line above it."""
        self._progress.advance(self._clips)
        if outcome.taken:
            self._progress.console.print(f"{outcome.clip}: {outcome.taken}", markup=False)
        if outcome.reason:
            line = f"{outcome.clip}: {outcome.stage}: {outcome.reason}"
            self._progress.console.print(line, style="red", markup=False)


def status_of(run: StageRun) -> str:
    """`hit` where the store had everything, else `done`."""
    return "hit" if run.cached else "done"
