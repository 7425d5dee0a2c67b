"""The transfer of one clip: the order of its stages, whoever runs them and whoever watches."""

import json
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from effivmt.catalog import Clip
from effivmt.pipeline import stages
from effivmt.pipeline.stages import Rendered
from effivmt.pipeline.workspace import Workspace
from effivmt.store.artifact import Artifact

Call = Callable[..., object]
"""Runs a function of `effivmt.pipeline.stages` on its inputs: directly, or as the task of an engine."""


def directly(function: Callable[..., object], *inputs: object) -> object:
    """The call without an engine."""
    return function(*inputs)


@dataclass(frozen=True)
class StageRun:
    """What a stage gave in this run (an Artifact, or a list of Rendered), and the seconds it took to get it."""

    stage: str
    result: object
    seconds: float

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The artifacts in the result."""
        return artifacts_of(self.result)

    @property
    def cached(self) -> bool:
        """The store had everything."""
        return all(artifact.cached for artifact in self.artifacts)


class Watch:
    """Who watches a run; this one looks away, a subclass shows what happens."""

    def started(self, stage: str) -> None:
        """A stage begins; it may turn out to be in the store."""

    def advanced(self, stage: str, done: int, total: int) -> None:
        """A stage has done so many of its units (as `Workspace.progress`)."""

    def finished(self, run: StageRun) -> None:
        """A stage has ended well."""


UNWATCHED = Watch()


@dataclass(frozen=True)
class Transferred:
    """All artifacts of one clip, and how they were come by in this run."""

    clip: Clip
    backbone_id: str
    backbone_digest: str
    runs: tuple[StageRun, ...]
    ingested: Artifact
    classified: Artifact
    appearance: Artifact
    motion: Artifact
    rendered: tuple[Rendered, ...]
    evaluated: Artifact

    @property
    def cached(self) -> bool:
        """The store had the results of every stage."""
        return all(run.cached for run in self.runs)

    @property
    def video_digest(self) -> str:
        """SHA-256 of the reference video's file."""
        return self.ingested.inputs["clip"]

    @property
    def metrics(self) -> list[dict]:
        """Per rendered video: prompt, seed, and the metrics `adapter` and, where rendered, `baseline`."""
        return json.loads(self.evaluated.file("metrics.json").read_text(encoding="utf-8"))

    @property
    def losses(self) -> dict[str, dict[str, list[float]]]:
        """Losses of every step by stage and name: `denoising`, and for `temporal` also `motion`."""
        curves = {"spatial": self.appearance, "temporal": self.motion}
        return {
            stage: json.loads(artifact.file("losses.json").read_text(encoding="utf-8"))
            for stage, artifact in curves.items()
        }


def run_clip(work: Workspace, clip: Clip, *, call: Call = directly, watch: Watch = UNWATCHED) -> Transferred:
    """Takes one clip through all stages; raises the EffiVMTError of the first that fails."""
    turns = stage_by_stage(work, clip, call=call, watch=watch)
    while True:
        try:
            next(turns)
        except StopIteration as end:
            return end.value


def stage_by_stage(
    work: Workspace, clip: Clip, *, call: Call = directly, watch: Watch = UNWATCHED
) -> Generator[StageRun, None, Transferred]:
    """Takes one clip through the stages, one a turn, so that who asks may stop at any; at the end returns the whole.

    Raises the EffiVMTError of the first stage that fails.
    """
    work, runs = work.for_clip(clip), []

    def step(function: Callable[..., object], *inputs: object) -> Generator[StageRun, None, object]:
        result, run = run_stage(function, work, *inputs, call=call, watch=watch)
        runs.append(run)
        yield run
        return result

    ingested = yield from step(stages.ingest, clip)
    classified = yield from step(stages.heads, clip, ingested)
    appearance = yield from step(stages.spatial, clip, ingested, classified)
    motion = yield from step(stages.temporal, clip, ingested, classified, appearance)
    rendered = yield from step(stages.render, clip.prompts, motion.file("adapter/adapter.json").parent)
    evaluated = yield from step(stages.evaluate, clip, ingested, rendered)
    return Transferred(
        clip=clip,
        backbone_id=work.folder.id,
        backbone_digest=work.folder.digest,
        runs=tuple(runs),
        ingested=ingested,
        classified=classified,
        appearance=appearance,
        motion=motion,
        rendered=tuple(rendered),
        evaluated=evaluated,
    )


def run_stage(
    function: Callable[..., object], *inputs: object, call: Call = directly, watch: Watch = UNWATCHED
) -> tuple[object, StageRun]:
    """Runs one function of `effivmt.pipeline.stages` under the eyes of `watch`; returns its result and its run."""
    watch.started(function.__name__)
    start = time.perf_counter()
    result = call(function, *inputs)
    run = StageRun(function.__name__, result, time.perf_counter() - start)
    watch.finished(run)
    return result, run


def artifacts_of(result: object) -> tuple[Artifact, ...]:
    """The artifacts in a stage's result: an Artifact, or a list of Rendered."""
    if isinstance(result, Artifact):
        return (result,)
    return tuple(a for one in result for a in (one.artifact, one.baseline) if a is not None)
