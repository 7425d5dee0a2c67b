"""The pipeline's steps, each (inputs, params) -> artifact in the store: the one implementation that the flows,
`dvc repro` and the command line all call.

    ingest -> heads -> spatial -> temporal -> render -> evaluate

Each step hashes the digests of the very files it reads and the params sections it reads, so a new prompt re-renders and
never re-tunes, and a new lambda re-tunes stage 3 only. What a step computes stands in `effivmt.pipeline.steps`, which is
imported when there is something to compute: asking for what the store has takes no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from effivmt.catalog import Clip
from effivmt.errors import EffiVMTError, VideoError
from effivmt.method.adapter_manifest import read_facts
from effivmt.pipeline.workspace import Workspace
from effivmt.store.artifact import Artifact
from effivmt.store.digests import sha256_bytes, sha256_file, sha256_tree

if TYPE_CHECKING:
    from effivmt.method.adapter import Adapter

STAGES = ("ingest", "heads", "spatial", "temporal", "render", "evaluate")


@dataclass(frozen=True)
class Rendered:
    """One rendered video (artifact: video.mp4, sheet.png) and, as the yardstick, the one without the adapter."""

    prompt: str
    seed: int
    artifact: Artifact
    baseline: Artifact | None

    @property
    def by_kind(self) -> dict[str, Artifact]:
        """The artifacts that are there, under `adapter` and `baseline`."""
        pair = {"adapter": self.artifact, "baseline": self.baseline}
        return {kind: artifact for kind, artifact in pair.items() if artifact is not None}


def ingest(work: Workspace, clip: Clip) -> Artifact:
    """Decodes, trims and resamples a clip and encodes it: whole, its frames one by one, and its sampled frames.

    Files: frames.safetensors (uint8 (T, H, W, 3)), probe.json and the latents: dense.safetensors (1, C, F, h, w),
    single.safetensors (M, C, 1, h, w) and, for pixel sampling, sampled.safetensors (phases, C, F', h, w). VideoError
    when the file cannot give the clip.
    """
    params, sampling = work.params.ingest, work.params.sampling
    if not clip.video.is_file():
        raise VideoError(f"video {clip.video} does not exist or is no file; give the path of a video file")
    inputs = {"clip": sha256_file(clip.video)}
    if clip.appearance_images is not None:
        if not clip.appearance_images.is_dir():
            raise VideoError(f"appearance images {clip.appearance_images} is no folder; give a folder of images")
        inputs["appearance_images"] = sha256_tree(clip.appearance_images)
    settings = {"ingest": params.model_dump(), "start": clip.start, "end": clip.end}
    settings["sampling"] = sampling.model_dump() if sampling.mode == "pixel" else None

    def make(out: Path, _scratch: Path) -> None:
        from effivmt.pipeline import steps

        steps.ingest(work.backbone, work.params, clip, out, work.units("ingest"))

    return work.build("ingest", inputs, settings, make)


def texts(work: Workspace, prompts: Sequence[str]) -> dict[str, Artifact]:
    """Embeds each prompt once for all clips (embedding.safetensors); the text encoder is loaded only for new ones."""
    found = {}
    settings = {"max_sequence_length": work.params.backbone.max_sequence_length, "dtype": work.params.backbone.dtype}
    for prompt in dict.fromkeys(prompts):

        def make(out: Path, _scratch: Path, prompt: str = prompt) -> None:
            from effivmt.pipeline import steps

            steps.text(work.backbone, prompt, out)

        found[prompt] = work.build("text", {"text": sha256_bytes(prompt.encode())}, settings, make)
    return found


def heads(work: Workspace, clip: Clip, ingested: Artifact) -> Artifact:
    """Classifies the backbone's heads on this clip, or once for the backbone; files: heads.parquet, heads.png."""
    params = work.params.heads
    settings = params.model_dump(exclude={"scope_clips"}) | {"precision": work.params.backbone.dtype}
    if params.split == "classified":  # keys of the time before there were others
        settings.pop("split")
    if params.scope == "clip":
        sources = [(ingested, texts(work, [clip.caption])[clip.caption])]
        inputs = {
            "clip": ingested.digest("dense.safetensors"),
            "caption": sources[0][1].digest("embedding.safetensors"),
        }
    else:
        if not params.scope_clips:
            raise EffiVMTError(
                "heads.scope is backbone but heads.scope_clips is empty; list the video files to average over"
            )
        unnamed = texts(work, [""])[""]
        scope = [
            Clip(clip="scope", video=Path(video), caption=clip.caption, prompts=clip.prompts)
            for video in params.scope_clips
        ]
        sources = [(ingest(work, other), unnamed) for other in scope]
        inputs = {f"scope_{i}": source.digest("dense.safetensors") for i, (source, _) in enumerate(sources)}

    def make(out: Path, _scratch: Path) -> None:
        from effivmt.pipeline import steps

        steps.heads(work.backbone, work.params, sources, out, work.units("heads"))

    return work.build("heads", inputs, settings | {"seed": work.params.seed}, make)


def spatial(work: Workspace, clip: Clip, ingested: Artifact, classified: Artifact) -> Artifact:
    """Stage 2, the appearance LoRA; files: spatial.safetensors (stock layout), losses.json."""
    caption = texts(work, [clip.caption])[clip.caption]
    inputs = {
        "clip": ingested.digest("single.safetensors"),
        "caption": caption.digest("embedding.safetensors"),
        "heads": classified.digest("heads.parquet"),
    }

    def make(out: Path, scratch: Path) -> None:
        from effivmt.pipeline import steps

        steps.spatial(work.backbone, work.params, ingested, caption, classified, out, scratch, work.units("spatial"))

    return work.build("spatial", inputs, _tuning_settings(work, work.params.spatial.model_dump()), make)


def temporal(work: Workspace, clip: Clip, ingested: Artifact, classified: Artifact, appearance: Artifact) -> Artifact:
    """Stage 3, the motion LoRA over the merged appearance LoRA; files: adapter/ (the adapter folder), losses.json."""
    caption = texts(work, [clip.caption])[clip.caption]
    name = "sampled" if work.params.sampling.mode == "pixel" else "dense"
    inputs = {
        "clip": ingested.digest(f"{name}.safetensors"),
        "caption": caption.digest("embedding.safetensors"),
        "heads": classified.digest("heads.parquet"),
        "spatial": appearance.digest("spatial.safetensors"),
    }
    settings = _tuning_settings(work, work.params.temporal.model_dump())
    settings |= {"sampling": work.params.sampling.model_dump(), "num_frames": work.params.ingest.num_frames}

    def make(out: Path, scratch: Path) -> None:
        from effivmt.pipeline import steps

        steps.temporal(
            work.backbone,
            work.params,
            clip,
            (ingested, name),
            caption,
            classified,
            appearance,
            out,
            scratch,
            work.units("temporal"),
        )

    return work.build("temporal", inputs, settings, make)


def render(work: Workspace, prompts: Sequence[str], adapter: Path | None) -> list[Rendered]:
    """Renders every prompt and seed with an adapter's branches fused, and without; files: video.mp4, sheet.png.

    `adapter` None: the backbone alone, which is then the result, without a yardstick.
    """
    params = work.params.render
    facts = read_facts(adapter) if adapter is not None else {}
    embedded = texts(work, [*prompts, params.negative_prompt])
    loaded: list[Adapter] = []
    jobs = [(prompt, seed) for prompt in prompts for seed in params.seeds]
    baseline = params.baseline and adapter is not None
    total, done = len(jobs) * (1 + baseline) * params.steps, 0

    def one(prompt: str, seed: int, *, adapted: bool) -> Artifact:
        nonlocal done
        own = {"seeds", "baseline"} | (set() if adapted else {"appearance_strength", "motion_strength"})
        settings = {"render": params.model_dump(exclude=own), "seed": seed, "ingest": work.params.ingest.model_dump()}
        settings["precision"] = work.params.backbone.dtype
        inputs = {
            "prompt": embedded[prompt].digest("embedding.safetensors"),
            "negative": embedded[params.negative_prompt].digest("embedding.safetensors"),
        }
        if adapted:
            inputs |= {
                f"adapter_{name}": digest for name, digest in facts["files"].items() if name.endswith("al.safetensors")
            }
        start = done

        def make(out: Path, _scratch: Path) -> None:
            from effivmt.method.adapter import load_adapter
            from effivmt.pipeline import steps

            if adapted and not loaded:
                loaded.append(load_adapter(adapter))
            steps.render(
                work.backbone,
                work.params,
                loaded[0] if adapted else None,
                (prompt, embedded[prompt]),
                embedded[params.negative_prompt],
                seed,
                out,
                lambda step, _: work.progress("render", start + step, total),
            )

        artifact = work.build("render", inputs, settings, make)
        done += params.steps
        return artifact

    return [
        Rendered(p, s, one(p, s, adapted=adapter is not None), one(p, s, adapted=False) if baseline else None)
        for p, s in jobs
    ]


def evaluate(work: Workspace, clip: Clip, ingested: Artifact, rendered: Sequence[Rendered]) -> Artifact:
    """Metrics of every rendered video, and of its yardstick, against the reference; files: metrics.json (a list)."""
    scorer, tracker = Path(work.params.evaluate.scorer), work.params.evaluate.tracker
    videos = {
        f"video_{i}_{kind}": artifact.digest("video.mp4")
        for i, result in enumerate(rendered)
        for kind, artifact in result.by_kind.items()
    }
    inputs = {
        "clip": ingested.digest("frames.safetensors"),
        **videos,
        "scorer": sha256_tree(scorer) if scorer.is_dir() else "none",
    }
    if tracker is not None:
        inputs["tracker"] = sha256_file(tracker) if tracker.is_file() else "none"
    prompts = [[result.prompt, result.seed] for result in rendered]

    def make(out: Path, _scratch: Path) -> None:
        from effivmt.pipeline import steps

        results = [(result.prompt, result.seed, result.by_kind) for result in rendered]
        steps.evaluate(work.backbone, scorer, tracker, clip.caption, ingested, results, out, work.units("evaluate"))

    return work.build("evaluate", inputs, {"prompts": prompts, "caption": clip.caption}, make)


def _tuning_settings(work: Workspace, section: dict[str, object]) -> dict[str, object]:
    """What a tuning stage's result depends on: its section (not how often it saves), the seed and the precision."""
    section.pop("save_every")
    return {**section, "seed": work.params.seed, "precision": work.params.backbone.dtype}
