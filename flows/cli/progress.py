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
from effivmt_flows.heartbeat import Heartbeat


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
        self._ended, self._computed, self._total, self._begun = 0, 0, total, time.monotonic()

    def ended(self, text: str, *, computed: bool = True) -> None:
        """Prints `[ended/total] text` and an estimate of the time left, from the mean time of the computed items.

        The estimate begins anew after an item that was not computed: these come first.
        """
        self._ended += 1
        line = f"[{self._ended}/{self._total}] {text}"
        if not computed:
            self._computed, self._begun = 0, time.monotonic()
        else:
            self._computed += 1
            if others := self._total - self._ended:
                left = (time.monotonic() - self._begun) / self._computed * others
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
    """One line for what was damaged, and for notices."""

    def on_damage(self, damage: DamageError) -> None:
        """Prints the file and its fault."""
        say(damage, sys.stderr)

    def on_notice(self, notice: str) -> None:
        """Prints the notice."""
        say(notice, sys.stderr)


class StageLines(DamageLines):
    """One line at the start and at the end of every stage, now and then while it lasts, and for what was damaged."""

    def __init__(self) -> None:
        """Has said nothing yet."""
        self._heartbeat = Heartbeat(lambda line: say(line, sys.stderr))

    def on_stage_progress(self, stage: str, done: int, total: int) -> None:
        """Prints now and then how far the stage is."""
        self._heartbeat.moved(stage, done, total)

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

    def on_notice(self, notice: str) -> None:
        """Prints a line above the bars."""
        self._progress.console.print(notice, style="yellow", markup=False, soft_wrap=True)


class ClipLines(DamageLines):
    """One line per clip, now and then while a stage lasts, and for what was damaged."""

    def __init__(self, total: int) -> None:
        """For a catalog of `total` clips."""
        self._lines, self._clip = NumberedLines(total), ""
        self._heartbeat = Heartbeat(lambda line: say(line, sys.stderr))

    def on_clip_start(self, clip: str) -> None:
        """Keeps the clip's name."""
        self._clip = clip

    def on_stage_progress(self, stage: str, done: int, total: int) -> None:
        """Prints now and then how far the clip's stage is."""
        self._heartbeat.moved(f"{self._clip}: {stage}", done, total)

    def on_notice(self, notice: str) -> None:
        """Prints the clip and the notice."""
        say(f"{self._clip}: {notice}", sys.stderr)

    def on_clip_end(self, outcome: ClipOutcome) -> None:
        """Prints the clip's outcome."""
        note = f": {outcome.stage}: {outcome.reason}" if outcome.reason else ""
        note += f": {outcome.taken}" if outcome.taken else ""
        line = f"{outcome.clip}: {outcome.status} in {outcome.seconds:.1f} s{note}"
        self._lines.ended(line, computed=outcome.status != "hit")


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
        self._total = total
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

    def on_notice(self, notice: str) -> None:
        """Prints a line above the bars."""
        self._progress.console.print(notice, style="yellow", markup=False, soft_wrap=True)

    def on_clip_end(self, outcome: ClipOutcome) -> None:
        """Moves the catalog's bar, which counts no hits; a failure and a short video get a line above it."""
        if outcome.status == "hit":  # the time left is that of the others
            self._total -= 1
            self._progress.update(self._clips, total=self._total)
        else:
            self._progress.advance(self._clips)
        if outcome.taken:
            self._progress.console.print(f"{outcome.clip}: {outcome.taken}", markup=False)
        if outcome.reason:
            line = f"{outcome.clip}: {outcome.stage}: {outcome.reason}"
            self._progress.console.print(line, style="red", markup=False)


def status_of(run: StageRun) -> str:
    """`hit` where the store had everything, else `done`."""
    return "hit" if run.cached else "done"
