"""The cells of the comparison: one method on one clip, a row for each prompt and seed, through the same stages.

A cell costs what its artifacts took when they were made, in this run or an earlier one; work that several methods share
counts for each of them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from effivmt.benchmark import peer_stages
from effivmt.benchmark.methods import Method, lack
from effivmt.benchmark.peers import tunes
from effivmt.catalog import Clip
from effivmt.config import Params, Section
from effivmt.errors import DamageError, in_one_line
from effivmt.pipeline import stages
from effivmt.pipeline.excerpt import load_excerpt
from effivmt.pipeline.healing import heal
from effivmt.pipeline.stages import RenderedVideo
from effivmt.pipeline.transfer import adapter_folder
from effivmt.pipeline.workspace import Workspace
from effivmt.store.artifact import Artifact


@dataclass(frozen=True)
class Job:
    """One method on one clip, with the method's params and, for a peer, the params of its own module."""

    method: Method
    params: Params
    clip: Clip
    peer: Section | None = None


@dataclass(frozen=True)
class Cell:
    """One video, or the error of one that failed, or why the method cannot make it.

    metrics: by name, None where not measurable; preparing_seconds, rendering_seconds: of its artifacts before and in
    rendering, without evaluation and text encoding; processor_seconds: CPU seconds of both; peak_bytes: the most
    resident memory that one of them took; either None where an artifact's record does not have it. video_key,
    adapter_key: of the artifacts with video.mp4 and with the weights, the latter None where a method tunes nothing;
    video: the former itself, None where only its row was kept (`FinishedJobs`). A failed cell has only an `error`, and
    one that the method cannot make only a reason, `cannot`.
    """

    method: str
    clip: str
    prompt: str
    seed: int
    error: str = ""
    metrics: dict[str, float | None] | None = None
    preparing_seconds: float | None = None
    rendering_seconds: float | None = None
    processor_seconds: float | None = None
    peak_bytes: int | None = None
    video_key: str | None = None
    adapter_key: str | None = None
    video: Artifact | None = None
    cannot: str = ""

    @property
    def seconds(self) -> float | None:
        """From the reference's file to the video; None of a cell without a video."""
        if self.error or self.preparing_seconds is None or self.rendering_seconds is None:
            return None
        return self.preparing_seconds + self.rendering_seconds


@dataclass(frozen=True)
class JobResult:
    """The result of a job: its cells, and whether the store had all.

    reference: the artifact with what the videos are compared with, of `ingest` or, where a part of the clip's motion is
    wanted, of `mask`; None where there is none.
    """

    job: Job
    cells: tuple[Cell, ...]
    reference: Artifact | None
    cached: bool

    @property
    def errors(self) -> tuple[str, ...]:
        """The distinct errors of its cells."""
        return tuple(dict.fromkeys(cell.error for cell in self.cells if cell.error))

    @property
    def cannot(self) -> str:
        """Why the method cannot make the cells; empty where it can."""
        return next((cell.cannot for cell in self.cells), "")


@dataclass(frozen=True)
class Prepared:
    """What a method has before it renders: the artifacts it used, the adapter, and how it renders one prompt.

    render takes the prompt, and the image that its videos begin with or none.
    """

    used: tuple[Artifact, ...]
    adapter: Artifact | None
    render: Callable[[str, Sequence[Path]], Sequence[RenderedVideo]]


def run_job(work: Workspace, job: Job) -> JobResult:
    """All cells of one method on one clip; an error fails the cells that it concerns, and no other."""
    if found := lack(job.method, job.clip):
        return JobResult(job, tuple(_cells(job, job.clip.prompts, cannot=found.reason)), None, cached=True)
    try:
        for trial in heal(work.callback):
            with trial:
                result = _run_job(work.for_clip(job.clip), job)
    except DamageError as error:
        result = JobResult(job, tuple(failed_cells(job, job.clip.prompts, in_one_line(error))), None, cached=False)
    return result


def _run_job(work: Workspace, job: Job) -> JobResult:
    clip = job.clip
    reference, cells, cached = None, [], []
    try:
        stages.check_clip_images(work, clip)
        reference = ingested = stages.ingest(work, clip)
        masked = stages.mask(work, clip, ingested) if clip.chosen else None
        reference = masked or ingested
        prepared = prepare(work, job, ingested, masked)
    except DamageError:
        raise
    except Exception as error:  # noqa: BLE001  (one bad cell never stops the comparison)
        return JobResult(job, tuple(failed_cells(job, clip.prompts, in_one_line(error))), reference, cached=False)
    for number, prompt in enumerate(clip.prompts):
        try:
            for rendered in prepared.render(prompt, clip.images[number : number + 1]):
                evaluated = stages.evaluate(work, clip, reference, [rendered])
                cells.append(_cell(job, prepared, rendered, evaluated))
                cached += [rendered.artifact.cached, evaluated.cached]
        except DamageError:
            raise
        except Exception as error:  # noqa: BLE001
            cells += failed_cells(job, (prompt,), in_one_line(error))
    all_cached = all((*cached, *(artifact.cached for artifact in prepared.used)))
    return JobResult(job, tuple(cells), reference, all_cached and not any(cell.error for cell in cells))


def prepare(work: Workspace, job: Job, ingested: Artifact, masked: Artifact | None) -> Prepared:
    """Everything that a method does on a clip before it renders; masked: the wanted part of its motion, if not all."""
    clip, maker, peer, params = job.clip, job.method.maker, job.method.peer, job.peer
    whole, work = work, work.for_frames(load_excerpt(ingested).num_frames)
    reference, read = (masked, (ingested, masked)) if masked else (ingested, (ingested,))
    if maker == "effivmt":
        classified = stages.heads(whole, clip, ingested)
        appearance = stages.spatial(work, clip, ingested, classified)
        motion = stages.temporal(work, clip, reference, classified, appearance=appearance)
        used = (*read, *((classified,) if work.params.heads.split != "none" else ()), appearance, motion)
        return _with_adapter(work, used, motion)
    if maker == "backbone":
        return Prepared((), None, lambda prompt, images: stages.render(work, [prompt], None, images=images))
    if maker == "reconstruction":
        copied = peer_stages.reconstruct(work, reference)
        seeds = work.params.render.seeds
        return Prepared(read, None, lambda prompt, _: [RenderedVideo(prompt, seed, copied, None) for seed in seeds])
    assert peer is not None and params is not None  # every other maker is a peer, whose params the runner reads
    if tunes(peer):
        tuned = peer_stages.tune(work, clip, ingested, peer=peer, params=params)
        return _with_adapter(work, (ingested, tuned), tuned)
    return Prepared(
        (ingested,), None, lambda prompt, _: peer_stages.render(work, ingested, prompt, peer=peer, params=params)
    )


def failed_cells(job: Job, prompts: Sequence[str], reason: str) -> list[Cell]:
    """A failed cell for each of these prompts and every seed."""
    return _cells(job, prompts, error=reason)


def _cells(job: Job, prompts: Sequence[str], *, error: str = "", cannot: str = "") -> list[Cell]:
    """A cell without a video for each of these prompts and every seed."""
    return [
        Cell(job.method.name, job.clip.clip, prompt, seed, error, cannot=cannot)
        for prompt in prompts
        for seed in job.params.render.seeds
    ]


def _with_adapter(work: Workspace, used: tuple[Artifact, ...], tuned: Artifact) -> Prepared:
    def render(prompt: str, images: Sequence[Path]) -> list[RenderedVideo]:
        with adapter_folder(tuned) as adapter:
            return stages.render(work, [prompt], adapter, images=images)

    return Prepared(used, tuned, render)


def _cell(job: Job, prepared: Prepared, rendered: RenderedVideo, evaluated: Artifact) -> Cell:
    (row,) = json.loads(evaluated.read("metrics.json"))
    used = (*prepared.used, rendered.artifact)
    busy = [artifact.processor_seconds for artifact in used if artifact.processor_seconds is not None]
    peaks = [artifact.peak_bytes for artifact in used if artifact.peak_bytes is not None]
    return Cell(
        method=job.method.name,
        clip=job.clip.clip,
        prompt=rendered.prompt,
        seed=rendered.seed,
        metrics=row["adapter"],
        preparing_seconds=sum(artifact.seconds for artifact in prepared.used),
        rendering_seconds=rendered.artifact.seconds,
        processor_seconds=sum(busy) if len(busy) == len(used) else None,
        peak_bytes=max(peaks) if len(peaks) == len(used) else None,
        video_key=rendered.artifact.key,
        adapter_key=None if prepared.adapter is None else prepared.adapter.key,
        video=rendered.artifact,
    )
