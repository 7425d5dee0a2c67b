"""Runs the stages of one clip: times each, keeps a record of it, and reports it to the callback."""

import time
from collections.abc import Callable, Sequence
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

    runs: the stages that have ended; stage: the name of the one at work, or of the one that failed.
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
        self.runs.append(StageRun(self.stage, artifacts_of(result), time.perf_counter() - start))
        self._callback.on_stage_end(self.runs[-1])
        return result


def artifacts_of(result: Artifact | Sequence[RenderedVideo]) -> tuple[Artifact, ...]:
    """The artifacts in a stage's result."""
    if isinstance(result, Artifact):
        return (result,)
    return tuple(artifact for video in result for artifact in video.by_kind.values())
