"""Stage render: renders every prompt and seed, with the adapters and without them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from effivmt.config import RenderParams
from effivmt.errors import VideoError
from effivmt.method.adapter_manifest import REGION
from effivmt.pipeline.stages.adapters import AdapterFolder, Strengths, open_adapter
from effivmt.pipeline.stages.first_frame import check_images, fitted, image_digest
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.stages.text_embedding import check_texts, embed_texts
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key

ADAPTER_FIELDS = {"appearance_strength", "motion_strength", "motion_boundary"}
"""What of the section only a rendering with an adapter reads."""


@dataclass(frozen=True)
class RenderedVideo:
    """One rendered video (artifact: video.mp4, sheet.png) and, for comparison, the one without the adapter.

    Where it begins with an image, the artifact has that too, as it was fitted: image.png.
    """

    prompt: str
    seed: int
    artifact: Artifact
    without_adapter: Artifact | None

    @property
    def by_kind(self) -> dict[str, Artifact]:
        """The artifacts that are there, under `adapter` and `baseline`, as metrics.json names them."""
        pair = {"adapter": self.artifact, "baseline": self.without_adapter}
        return {kind: artifact for kind, artifact in pair.items() if artifact is not None}


@dataclass(frozen=True)
class Regional:
    """An adapter that acts in its region alone, and its strengths there."""

    adapter: AdapterFolder
    strengths: Strengths


@dataclass(frozen=True)
class RenderJob:
    """One video to render: its prompt, the embeddings of the prompt and the negative prompt, seed and adapter.

    image: the file that it begins with, where one is given; regional: adapters that act in their regions instead.
    """

    prompt: str
    embedding: Artifact
    negative: Artifact
    seed: int
    adapter: AdapterFolder | None
    image: Path | None = None
    regional: tuple[Regional, ...] = ()

    @property
    def adapted(self) -> bool:
        """Whether any adapter takes part."""
        return self.adapter is not None or bool(self.regional)


def render_jobs(
    work: Workspace,
    prompts: Sequence[str],
    embeddings: Mapping[str, Artifact],
    adapter: AdapterFolder | None,
    *,
    images: Sequence[Path] = (),
    regional: Sequence[Regional] = (),
) -> list[RenderJob]:
    """The videos of a rendering: for each prompt and seed one with the adapters, then, if asked for, one without.

    images: the file that the videos of each prompt begin with; none: they begin with none.
    """
    params = work.params.render
    firsts: Sequence[Path | None] = images or [None] * len(prompts)
    jobs = []
    for prompt, image in zip(prompts, firsts, strict=True):
        for seed in params.seeds:
            alone = RenderJob(prompt, embeddings[prompt], embeddings[params.negative_prompt], seed, None, image)
            jobs.append(job := replace(alone, adapter=adapter, regional=tuple(regional)))
            if params.baseline and job.adapted:
                jobs.append(alone)
    return jobs


def rendered_videos(jobs: Sequence[RenderJob], made: Sequence[Artifact]) -> list[RenderedVideo]:
    """The videos of these jobs, each with the one without the adapter, which is made after it."""
    compared = any(job.adapted for job in jobs)
    videos: list[RenderedVideo] = []
    for job, artifact in zip(jobs, made, strict=True):
        if not job.adapted and compared:
            videos[-1] = replace(videos[-1], without_adapter=artifact)
        else:
            videos.append(RenderedVideo(job.prompt, job.seed, artifact, None))
    return videos


def sampling_settings(params: RenderParams, unread: set[str]) -> dict[str, object]:
    """The section without the fields that are `unread`, and without those that are newer than keys and are unset."""
    unset = {name for name in ("guidance_scale_2", "motion_boundary") if not getattr(params, name)}
    return params.model_dump(exclude=unread | unset)


def _render_params(work: Workspace, job: RenderJob) -> RenderParams:
    """The section; an image gives the looks, so that those of the reference are not rendered beside it."""
    params = work.params.render
    return params if job.image is None else params.model_copy(update={"appearance_strength": 0.0})


def _regional_strengths(job: RenderJob) -> list[Strengths]:
    """The strengths of the adapters that act in regions; an image gives the looks here, too."""
    given = [one.strengths for one in job.regional]
    return given if job.image is None else [replace(strengths, appearance=0.0) for strengths in given]


def render_key(work: Workspace, job: RenderJob) -> Key:
    """The store key."""
    params, adapter = _render_params(work, job), job.adapter
    unread = {"seeds", "baseline"} | (set() if adapter else ADAPTER_FIELDS)
    if job.regional:  # they have strengths of their own
        unread -= {"motion_boundary"}
    settings = {
        "render": sampling_settings(params, unread),
        "seed": job.seed,
        "ingest": work.params.ingest.model_dump(),
        "precision": work.adapted_precision if job.adapted else work.precision,
        **work.kernels(work.params.backbone.attention, compiled=True),
    }
    if work.memory.tiled_decoding:  # keys of whole pictures do not have it
        settings["tiled"] = True
    inputs = {
        "prompt": job.embedding.digest("embedding.safetensors"),
        "negative": job.negative.digest("embedding.safetensors"),
    }
    if job.image is not None:
        inputs["image"] = image_digest(job.image)
    if adapter:
        inputs |= {f"adapter_{name}": digest for name, digest in adapter.digests.items()}
    for number, one in enumerate(job.regional, 1):
        files = {**one.adapter.digests, REGION: one.adapter.region or ""}
        inputs |= {f"regional_{number}_{name}": digest for name, digest in files.items()}
    if job.regional:
        settings["regional"] = [[it.appearance, it.motion] for it in _regional_strengths(job)]
    return work.key("render", inputs, settings)


def render(
    work: Workspace,
    prompts: Sequence[str],
    adapter: Path | str | None,
    *,
    images: Sequence[Path] = (),
    regional: Sequence[Regional] = (),
) -> list[RenderedVideo]:
    """Renders every prompt and seed with an adapter folder, and without it; files: video.mp4, sheet.png.

    `adapter` None: the backbone alone, with nothing to compare with. regional: adapters that act in their regions,
    with `adapter` outside of them; `arrange` makes both of several folders. images: the file that the videos of each
    prompt begin with, on a backbone that takes them; each is also a file image.png, as it was fitted, and gives the
    looks: the appearance strength is then 0. AdapterError where a folder is damaged or was made for another backbone;
    the errors of `check_texts` and `check_images`.
    """
    check_texts(work, prompts)
    check_images(work, prompts, images)
    opened = open_adapter(Path(adapter)) if adapter is not None else None
    embeddings = embed_texts(work, [*prompts, work.params.render.negative_prompt])
    jobs = render_jobs(work, prompts, embeddings, opened, images=images, regional=regional)
    steps, total = work.params.render.steps, len(jobs) * work.params.render.steps

    def progress(number: int) -> Callable[[int, int], None]:
        return lambda step, _: work.callback.on_stage_progress("render", number * steps + step, total)

    made = []
    for number, job in enumerate(jobs):
        key = render_key(work, job)
        make = partial(_render, work, job=job, key=key, progress=progress(number))
        made.append(work.store.build(key, make, force=work.forces(key)))
    return rendered_videos(jobs, made)


def _render(
    work: Workspace, out: Path, _scratch: Path, *, job: RenderJob, key: Key, progress: Callable[[int, int], None]
) -> None:
    from effivmt.media.figures import contact_sheet
    from effivmt.media.video import write_image, write_video
    from effivmt.method.adapter_merge import Part
    from effivmt.method.rendering import render as render_frames

    work.backbone.keep("transformer", "transformer_2", "vae", "image_encoder", "image_processor", frozen=True)
    image = None if job.image is None else fitted(work, job.image)
    frames = render_frames(
        work.backbone,
        job.adapter.load() if job.adapter else None,
        load_tensor(job.embedding, "embedding"),
        load_tensor(job.negative, "embedding"),
        params=_render_params(work, job),
        size=work.params.ingest,
        seed=job.seed,
        image=image,
        regional=[
            Part(one.adapter.load(), strengths.appearance, strengths.motion)
            for one, strengths in zip(job.regional, _regional_strengths(job), strict=True)
        ],
        progress=progress,
    )
    write_video(out / "video.mp4", frames, work.params.ingest.fps)
    write_image(out / "sheet.png", contact_sheet([(job.prompt, frames)]))
    if image is not None:
        write_image(out / "image.png", image)
        if render_key(work, job) != key:
            raise VideoError(f"image {job.image} has changed while it was read; run again")
