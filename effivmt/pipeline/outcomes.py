"""Outcomes of stages, of clips and of catalog runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from effivmt.store import Artifact

QUARANTINE = "quarantine.csv"
RUN = "run.json"
Status = Literal["hit", "done", "failed"]


@dataclass(frozen=True)
class ClipOutcome:
    """The outcome of one clip: `hit` (the store had everything), `done`, or `failed` (at `stage`, for `reason`).

    seconds: in all; stages: seconds of each stage that ended; hits: the stages that the store had; taken: what was
    taken of the video, where it has fewer frames than were asked for; notices: what else is to be told of the results.
    """

    clip: str
    status: Status
    seconds: float
    stages: dict[str, float]
    hits: tuple[str, ...] = ()
    stage: str = ""
    reason: str = ""
    taken: str = ""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunSummary:
    """What run.json holds: the catalog file's name, when the run ended (UTC), its seconds, counts by status, and clips.

    Clips of the catalog that a run left out keep the outcome of the run before; the counts are of this run alone.
    removed: clips that have left the catalog and whose results are still there.
    """

    catalog: str
    ended: str
    seconds: float
    hit: int
    done: int
    failed: int
    clips: list[ClipOutcome] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    @property
    def counts(self) -> str:
        """The counts and the time as text: "3 done, 4 hit, 1 failed in 12.3 s"."""
        return f"{self.done} done, {self.hit} hit, {self.failed} failed in {self.seconds:.1f} s"

    def message(self, out: Path) -> str:
        """The counts, and where the reasons of the failures are."""
        return self.counts + (f"; reasons: {out / QUARANTINE}" if self.failed else "")


@dataclass(frozen=True)
class StageRun:
    """A stage that has ended: its artifacts, and the seconds that this run spent on it."""

    stage: str
    artifacts: tuple[Artifact, ...]
    seconds: float

    @property
    def cached(self) -> bool:
        """Whether the store had all of its artifacts."""
        return all(artifact.cached for artifact in self.artifacts)
