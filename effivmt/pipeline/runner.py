"""Runs the stages of one clip: times each, keeps a record of it, and reports it to the callback."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ParamSpec, Protocol, TypeVar

from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.outcomes import StageRun
from effivmt.pipeline.stages import RenderedVideo
from effivmt.store import Artifact

P = ParamSpec("P")
Result = TypeVar("Result", Artifact, list[RenderedVideo])


class CallStage(Protocol):
    """Calls a stage with its arguments, for example as the task of an engine, and returns the stage's result."""

    def __call__(self, stage: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result: ...


class StageRunner:
    """Runs stages one after another.

    runs: the stages that have ended, each once, with all that its calls made and took; stage: the name of the one at
    work, or of the one that failed.
    """

    def __init__(self, callback: Callback, call: CallStage | None = None) -> None:
        """call: how an engine calls a stage; None calls it directly."""
        self.runs: list[StageRun] = []
        self.stage = ""
        self._callback, self._call = callback, call

    def run(self, stage: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """Runs one function of `effivmt.pipeline.stages` and returns its result; raises what the stage raises."""
        self.stage = stage.__name__
        self._callback.on_stage_start(self.stage)
        start = time.perf_counter()
        result = stage(*args, **kwargs) if self._call is None else self._call(stage, *args, **kwargs)
        run = StageRun(self.stage, artifacts_of(result), time.perf_counter() - start)
        if earlier := [run for run in self.runs if run.stage == self.stage]:
            self.runs.remove(earlier[0])
            run = _joined(earlier[0], run)
        self.runs.append(run)
        self._callback.on_stage_end(run)
        return result


def _joined(earlier: StageRun, again: StageRun) -> StageRun:
    """Two calls of a stage as one: what the first made is no hit in the second, and their seconds add up."""
    made = {artifact.path for artifact in earlier.artifacts if not artifact.cached}
    artifacts = tuple(replace(it, cached=it.cached and it.path not in made) for it in again.artifacts)
    return StageRun(again.stage, artifacts, earlier.seconds + again.seconds)


def artifacts_of(result: Artifact | Sequence[RenderedVideo]) -> tuple[Artifact, ...]:
    """The artifacts in a stage's result."""
    if isinstance(result, Artifact):
        return (result,)
    return tuple(artifact for video in result for artifact in video.by_kind.values())
