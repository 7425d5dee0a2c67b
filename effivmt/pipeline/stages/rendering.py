"""Stage render: renders every prompt and seed, with the adapter merged into the weights and without it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from effivmt.config import RenderParams
from effivmt.errors import AdapterError, VideoError
from effivmt.method.adapter_manifest import expert_names, read_facts
from effivmt.method.experts import named
from effivmt.pipeline.stages.first_frame import check_images, fitted, image_digest
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.stages.text_embedding import check_texts, embed_texts
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key

if TYPE_CHECKING:
    from effivmt.method.adapter import Adapter

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


@dataclass
class AdapterFolder:
    """An adapter folder whose files were verified; the weights are loaded when a video is rendered with them."""

    path: Path
    digests: Mapping[str, str]
    loaded: "Adapter | None" = field(default=None, repr=False)

    def load(self) -> "Adapter":
        """The weights, loaded once; AdapterError where the folder is no longer the one that was opened."""
        from effivmt.method.adapter import load_adapter

        if self.loaded is None:
            self.loaded = load_adapter(self.path)
            if open_adapter(self.path).digests != self.digests:
                raise AdapterError(f"adapter {self.path} has been replaced by another meanwhile; try again")
        return self.loaded


@dataclass(frozen=True)
class RenderJob:
    """One video to render: its prompt, the embeddings of the prompt and the negative prompt, seed and adapter.

    image: the file that it begins with, where one is given.
    """

    prompt: str
    embedding: Artifact
    negative: Artifact
    seed: int
    adapter: AdapterFolder | None
    image: Path | None = None


def open_adapter(folder: Path) -> AdapterFolder:
    """Verifies an adapter folder; AdapterError where it is damaged or none."""
    facts = read_facts(folder)
    names = [
        f"{named(branch, expert)}.safetensors" for expert in expert_names(facts) for branch in ("spatial", "temporal")
    ]
    return AdapterFolder(folder, {name: facts["files"][name] for name in names})


def render_jobs(
    work: Workspace,
    prompts: Sequence[str],
    embeddings: Mapping[str, Artifact],
    adapter: AdapterFolder | None,
    *,
    images: Sequence[Path] = (),
) -> list[RenderJob]:
    """The videos of a rendering: for each prompt and seed one with the adapter, then, if asked for, one without.

    images: the file that the videos of each prompt begin with; none: they begin with none.
    """
    params = work.params.render
    firsts: Sequence[Path | None] = images or [None] * len(prompts)
    kinds = [adapter, None] if params.baseline and adapter is not None else [adapter]
    return [
        RenderJob(prompt, embeddings[prompt], embeddings[params.negative_prompt], seed, kind, image)
        for prompt, image in zip(prompts, firsts, strict=True)
        for seed in params.seeds
        for kind in kinds
    ]


def rendered_videos(jobs: Sequence[RenderJob], made: Sequence[Artifact]) -> list[RenderedVideo]:
    """The videos of these jobs, each with the one without the adapter, which is made after it."""
    compared = any(job.adapter for job in jobs)
    videos: list[RenderedVideo] = []
    for job, artifact in zip(jobs, made, strict=True):
        if job.adapter is None and compared:
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


def render_key(work: Workspace, job: RenderJob) -> Key:
    """The store key."""
    params, adapter = _render_params(work, job), job.adapter
    unread = {"seeds", "baseline"} | (set() if adapter else ADAPTER_FIELDS)
    settings = {
        "render": sampling_settings(params, unread),
        "seed": job.seed,
        "ingest": work.params.ingest.model_dump(),
        "precision": work.adapted_precision if adapter else work.precision,
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
    return work.key("render", inputs, settings)


def render(
    work: Workspace, prompts: Sequence[str], adapter: Path | str | None, *, images: Sequence[Path] = ()
) -> list[RenderedVideo]:
    """Renders every prompt and seed with an adapter folder, and without it; files: video.mp4, sheet.png.

    `adapter` None: the backbone alone, with nothing to compare with. images: the file that the videos of each prompt
    begin with, on a backbone that takes them; each is also a file image.png, as it was fitted, and gives the looks: the
    appearance strength is then 0. AdapterError where the folder is damaged or was made for another backbone; the errors
    of `check_texts` and `check_images`.
    """
    check_texts(work, prompts)
    check_images(work, prompts, images)
    opened = open_adapter(Path(adapter)) if adapter is not None else None
    embeddings = embed_texts(work, [*prompts, work.params.render.negative_prompt])
    jobs = render_jobs(work, prompts, embeddings, opened, images=images)
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
        progress=progress,
    )
    write_video(out / "video.mp4", frames, work.params.ingest.fps)
    write_image(out / "sheet.png", contact_sheet([(job.prompt, frames)]))
    if image is not None:
        write_image(out / "image.png", image)
        if render_key(work, job) != key:
            raise VideoError(f"image {job.image} has changed while it was read; run again")
