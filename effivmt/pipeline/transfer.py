"""The transfer of one clip: its stages, one after another."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from effivmt.catalog import Clip
from effivmt.errors import AdapterError, DamageError
from effivmt.evaluation.metrics import MetricRow
from effivmt.method.adapter_manifest import BackboneFacts
from effivmt.pipeline.excerpt import Excerpt, load_excerpt
from effivmt.pipeline.notices import notices
from effivmt.pipeline.outcomes import StageRun
from effivmt.pipeline.reconstruction import load_psnr
from effivmt.pipeline.runner import StageRunner
from effivmt.pipeline.stages import (
    RenderedVideo,
    check_clip_images,
    check_texts,
    evaluate,
    heads,
    ingest,
    mask,
    render,
    spatial,
    temporal,
)
from effivmt.pipeline.stages.previewing import show_untuned
from effivmt.pipeline.workspace import Workspace
from effivmt.report.run_record import Labels, labels_of
from effivmt.store import Artifact


@dataclass(frozen=True)
class MethodFacts:
    """Which method made the results, where the params of the pipeline do not say it: name, title, and params of its
    own."""

    name: str
    title: str
    params: Mapping[str, object]


@dataclass(frozen=True)
class TransferResult:
    """All artifacts of one clip, and the runs of the stages that made or found them.

    motion: the one with the adapter folder. classified, appearance and motion: None where the method has none. masked:
    None where all of the clip's motion is wanted. method: None for EffiVMT.
    """

    clip: Clip
    backbone: BackboneFacts
    runs: tuple[StageRun, ...]
    ingested: Artifact
    rendered: tuple[RenderedVideo, ...]
    evaluated: Artifact
    classified: Artifact | None = None
    appearance: Artifact | None = None
    motion: Artifact | None = None
    masked: Artifact | None = None
    method: MethodFacts | None = None

    @property
    def cached(self) -> bool:
        """Whether the store had the results of every stage."""
        return all(run.cached for run in self.runs)

    @property
    def video_digest(self) -> str:
        """SHA-256 of the reference video's file."""
        return self.ingested.inputs["clip"]

    @property
    def excerpt(self) -> Excerpt:
        """What was taken of the reference video."""
        return load_excerpt(self.ingested)

    @property
    def notices(self) -> tuple[str, ...]:
        """What a user has to be told of the results, one line for each matter."""
        if self.motion is None and self.method is not None:
            return notices(load_psnr(self.ingested), self.metrics, compared=(self.method.title, "the backbone alone"))
        return notices(load_psnr(self.ingested), self.metrics)

    @property
    def labels(self) -> Labels:
        """What the videos are called, and those that they are compared with."""
        return labels_of(None if self.method is None else self.method.title, adapted=self.motion is not None)

    @property
    def metrics(self) -> list[MetricRow]:
        """Per rendered video: prompt, seed, and the metrics `adapter` and, where it was rendered, `baseline`."""
        return json.loads(self.evaluated.read("metrics.json"))

    @property
    def losses(self) -> dict[str, dict[str, list[float]]]:
        """Losses of every step by stage and name: `denoising`, for `temporal` also `motion`; {} where none are kept."""
        curves = {"spatial": self.appearance, "temporal": self.motion}
        return {
            stage: json.loads(artifact.read("losses.json"))
            for stage, artifact in curves.items()
            if artifact is not None and "losses.json" in artifact.files
        }


TransferMethod = Callable[[Workspace, Clip, StageRunner], TransferResult]
"""Takes a clip through all stages, as `run_clip` does."""


def run_clip(work: Workspace, clip: Clip, runner: StageRunner | None = None) -> TransferResult:
    """Takes one clip through all stages; raises the EffiVMTError of the first that fails."""
    work, runner = work.for_clip(clip), runner or StageRunner(work.callback)
    runner.stage = "text"
    check_texts(work, (clip.caption, *clip.prompts))
    runner.stage = "images" if clip.images else runner.stage
    check_clip_images(work, clip)
    ingested = runner.run(ingest, work, clip)
    masked = runner.run(mask, work, clip, ingested) if clip.chosen else None
    if work.previews is not None:
        show_untuned(work.for_frames(load_excerpt(ingested).num_frames), clip, ingested, masked)
    classified = runner.run(heads, work, clip, ingested)
    work = work.for_frames(load_excerpt(ingested).num_frames)
    appearance = runner.run(spatial, work, clip, ingested, classified)
    motion = runner.run(temporal, work, clip, masked or ingested, classified, appearance=appearance)
    with adapter_folder(motion) as adapter:
        rendered = runner.run(render, work, clip.prompts, adapter, images=clip.images)
    evaluated = runner.run(evaluate, work, clip, masked or ingested, rendered)
    return TransferResult(
        clip=clip,
        backbone=work.folder.facts,
        runs=tuple(runner.runs),
        ingested=ingested,
        classified=classified,
        appearance=appearance,
        motion=motion,
        rendered=tuple(rendered),
        evaluated=evaluated,
        masked=masked,
    )


@contextmanager
def adapter_folder(tuned: Artifact) -> Iterator[Path]:
    """The adapter folder in the artifact of a tuning stage.

    DamageError where a file of it is, or becomes, damaged, also where another process has made it again meanwhile.
    """
    try:
        yield (folder := tuned.folder("adapter"))
    except AdapterError as error:
        tuned.folder("adapter")
        raise DamageError(tuned.stage, folder, "was damaged while it was read") from error
    else:
        tuned.folder("adapter")
