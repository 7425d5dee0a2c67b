"""Progress of a run: the one interface through which the pipeline reports what it does."""

from effivmt.errors import DamageError
from effivmt.pipeline.outcomes import ClipOutcome, StageRun


class Callback:
    """Receives the progress of a run; every method does nothing until a subclass overrides it."""

    def on_clip_start(self, clip: str) -> None:
        """A clip of a catalog begins."""

    def on_stage_start(self, stage: str) -> None:
        """A stage begins; its result may turn out to be in the store."""

    def on_stage_progress(self, stage: str, done: int, total: int) -> None:
        """A stage has done `done` of its `total` units of work."""

    def on_stage_end(self, run: StageRun) -> None:
        """A stage has ended without an error."""

    def on_damage(self, damage: DamageError) -> None:
        """A file of the store was damaged; it is dropped, and the stages that it concerns run again."""

    def on_notice(self, notice: str) -> None:
        """One line on what the user should know: a tuning goes on at a lower rate, or failed work is tried again."""

    def on_clip_end(self, outcome: ClipOutcome) -> None:
        """A clip of a catalog has ended, successfully or not."""
