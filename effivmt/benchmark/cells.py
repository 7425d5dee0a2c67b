"""The cells of the comparison: one method on one clip, a row for each prompt and seed, through the same stages.

A cell costs what its artifacts took when they were made, whoever made them: work that the store already has counts
as if this run had done it, and work that several methods share counts for each.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from effivmt.benchmark import peer_stages
from effivmt.benchmark.methods import Method
from effivmt.catalog import Clip
from effivmt.config import Params, Section
from effivmt.errors import in_one_line
from effivmt.pipeline import stages
from effivmt.pipeline.stages import RenderedVideo
from effivmt.pipeline.transfer import adapter_folder
from effivmt.pipeline.workspace import Workspace
from effivmt.store.artifact import Artifact


@dataclass(frozen=True)
class Job:
    """One method on one clip; `params`: the method's own; `peer`: those of its file in `effivmt.benchmark.baselines`, if any."""

    method: Method
    params: Params
    clip: Clip
    peer: Section | None = None


@dataclass(frozen=True)
class Cell:
    """One video. `metrics` by name; `preparing` and `rendering`: the seconds of its artifacts before and in rendering,
    evaluation and text encoding apart; `processor`: the processor's seconds of both; `peak_bytes`: the most resident
    memory that one of them took; either None where a record does not say. `video`: the artifact (video.mp4), `adapter`:
    the one with the weights behind it; None where a method tunes nothing. A failed cell has only an `error`.
    """

    method: str
    clip: str
    prompt: str
    seed: int
    error: str = ""
    metrics: dict[str, float] | None = None
    preparing: float | None = None
    rendering: float | None = None
    processor: float | None = None
    peak_bytes: int | None = None
    video: Artifact | None = None
    adapter: Artifact | None = None

    @property
    def seconds(self) -> float | None:
        """From the reference's file to the video."""
        return None if self.error else self.preparing + self.rendering


@dataclass(frozen=True)
class Done:
    """What came of a job: its cells, the clip's ingest artifact (None: it failed), and whether the store had all."""

    job: Job
    cells: tuple[Cell, ...]
    ingested: Artifact | None
    cached: bool

    @property
    def errors(self) -> tuple[str, ...]:
        """The distinct errors of its cells."""
        return tuple(dict.fromkeys(cell.error for cell in self.cells if cell.error))


@dataclass(frozen=True)
class Prepared:
    """What a method has before it renders: the artifacts it used, the adapter, and how it renders one prompt."""

    used: tuple[Artifact, ...]
    adapter: Artifact | None
    render: Callable[[str], Sequence[RenderedVideo]]


def run_job(work: Workspace, job: Job) -> Done:
    """All cells of one method on one clip; whatever goes wrong is in the cells that it spoils, and stops no other."""
    work, clip = work.for_clip(job.clip), job.clip
    ingested, cells, cached = None, [], []
    try:
        ingested = stages.ingest(work, clip)
        prepared = prepare(work, job, ingested)
    except Exception as error:  # noqa: BLE001  (one bad cell never stops the comparison)
        return Done(job, tuple(failed(job, clip.prompts, in_one_line(error))), ingested, cached=False)
    for prompt in clip.prompts:
        try:
            for rendered in prepared.render(prompt):
                evaluated = stages.evaluate(work, clip, ingested, [rendered])
                cells.append(_cell(job, prepared, rendered, evaluated))
                cached += [rendered.artifact.cached, evaluated.cached]
        except Exception as error:  # noqa: BLE001
            cells += failed(job, (prompt,), in_one_line(error))
    all_cached = all((*cached, *(artifact.cached for artifact in prepared.used)))
    return Done(job, tuple(cells), ingested, all_cached and not any(cell.error for cell in cells))


def prepare(work: Workspace, job: Job, ingested: Artifact) -> Prepared:
    """Everything that a method does on a clip before it renders."""
    clip, maker = job.clip, job.method.maker
    if maker == "effivmt":
        classified = stages.heads(work, clip, ingested)
        appearance = stages.spatial(work, clip, ingested, classified)
        motion = stages.temporal(work, clip, ingested, classified, appearance=appearance)
        used = (ingested, *((classified,) if work.params.heads.split != "none" else ()), appearance, motion)
        return _with_adapter(work, used, motion)
    if maker == "backbone":
        return Prepared((), None, lambda prompt: stages.render(work, [prompt], None))
    if maker == "reconstruction":
        copied = peer_stages.reconstruct(work, ingested)
        seeds = work.params.render.seeds
        return Prepared((ingested,), None, lambda prompt: [RenderedVideo(prompt, seed, copied, None) for seed in seeds])
    if maker == "motion_director":
        tuned = peer_stages.tune(work, clip, ingested, peer=maker, params=job.peer)
        return _with_adapter(work, (ingested, tuned), tuned)
    return Prepared(
        (ingested,), None, lambda prompt: peer_stages.render(work, ingested, prompt, peer=maker, params=job.peer)
    )


def failed(job: Job, prompts: Sequence[str], reason: str) -> list[Cell]:
    """The cells of these prompts, which a failure has spoiled."""
    seeds = job.params.render.seeds
    return [Cell(job.method.name, job.clip.clip, prompt, seed, reason) for prompt in prompts for seed in seeds]


def _with_adapter(work: Workspace, used: tuple[Artifact, ...], tuned: Artifact) -> Prepared:
    return Prepared(used, tuned, lambda prompt: stages.render(work, [prompt], adapter_folder(tuned)))


def _cell(job: Job, prepared: Prepared, rendered: RenderedVideo, evaluated: Artifact) -> Cell:
    (row,) = json.loads(evaluated.file("metrics.json").read_text(encoding="utf-8"))
    used = (*prepared.used, rendered.artifact)
    busy, peaks = [it.processor_seconds for it in used], [it.peak_bytes for it in used]
    return Cell(
        method=job.method.name,
        clip=job.clip.clip,
        prompt=rendered.prompt,
        seed=rendered.seed,
        metrics=row["adapter"],
        preparing=sum(artifact.seconds for artifact in prepared.used),
        rendering=rendered.artifact.seconds,
        processor=None if None in busy else sum(busy),
        peak_bytes=None if None in peaks else max(peaks),
        video=rendered.artifact,
        adapter=prepared.adapter,
    )
