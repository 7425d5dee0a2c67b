"""The pipeline's steps, each (inputs, params) -> artifact in the store: the one implementation that the flows,
`dvc repro` and the command line all call.

    ingest -> heads -> spatial -> temporal -> render -> evaluate

Each step hashes the digests of the very files it reads and the params sections it reads, so a new prompt re-renders and
never re-tunes, and a new lambda re-tunes stage 3 only.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from effivmt import adapter as adapters
from effivmt import heads as head_maps
from effivmt import tuning
from effivmt.backbone import Backbone
from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import EffiVMTError, VideoError
from effivmt.evaluation.motion import compare_motion
from effivmt.evaluation.similarity import ClipScorer, temporal_consistency, text_similarity
from effivmt.figures import contact_sheet, head_map
from effivmt.objectives import add_noise
from effivmt.positions import sampled_indices
from effivmt.rendering import render as render_frames
from effivmt.seeding import generator
from effivmt.store import Artifact, Key, Store, canonical_json, sha256_bytes, sha256_file, sha256_tree
from effivmt.video import probe, read_clip, read_frames, read_images, write_image, write_video

STAGES = ("ingest", "heads", "spatial", "temporal", "render", "evaluate")
Progress = Callable[[str, int, int], None]
"""Called with (stage, units done, units in all)."""


def _silent(stage: str, done: int, total: int) -> None:
    pass


@dataclass
class Workspace:
    """Where the steps of one process work: the store, the params, the backbone (loaded once) and who watches."""

    store: Store
    params: Params
    progress: Progress = _silent
    force: frozenset[str] = frozenset()
    """Stages to run again even where the store has them."""
    _backbone: Backbone | None = field(default=None, repr=False)

    @property
    def backbone(self) -> Backbone:
        """The backbone of the params, found and digested on first use."""
        if self._backbone is None:
            self._backbone = Backbone(self.params.backbone, self.store.root / "backbones.json")
        return self._backbone

    def build(
        self,
        stage: str,
        version: int,
        inputs: Mapping[str, str],
        params: Mapping[str, object],
        make: Callable[[Path, Path], None],
    ) -> Artifact:
        """One artifact of the store under this backbone."""
        return self.store.build(
            Key(stage, version, inputs, params, self.backbone.digest), make, force=stage in self.force
        )


@dataclass(frozen=True)
class Rendered:
    """One rendered video (artifact: video.mp4, sheet.png) and, as the yardstick, the one without the adapter."""

    prompt: str
    seed: int
    artifact: Artifact
    baseline: Artifact | None


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
        size = {"height": params.height, "width": params.width}
        frames = read_clip(
            clip.video, fps=params.fps, num_frames=params.num_frames, start=clip.start, end=clip.end, **size
        )
        images = frames if clip.appearance_images is None else read_images(clip.appearance_images, **size)
        sampled = [
            frames[sampled_indices(len(frames), sampling.frames, phase / sampling.phases)]
            for phase in range(sampling.phases if sampling.mode == "pixel" else 0)
        ]
        total, done = 1 + len(images) + len(sampled), 0

        def encode(video: np.ndarray) -> torch.Tensor:
            nonlocal done
            latents = work.backbone.encode_video(video)
            done += 1
            work.progress("ingest", done, total)
            return latents

        latents = {"dense": encode(frames)[None], "single": torch.stack([encode(image[None]) for image in images])}
        if sampled:
            latents["sampled"] = torch.stack([encode(video) for video in sampled])
        for name, tensor in latents.items():
            save_file({name: tensor.contiguous()}, out / f"{name}.safetensors")
        save_file({"frames": torch.from_numpy(np.ascontiguousarray(frames))}, out / "frames.safetensors")
        info = probe(clip.video)
        facts = {
            name: getattr(info, name)
            for name in ("width", "height", "fps", "duration", "num_frames", "rotation", "codec")
        }
        (out / "probe.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")

    return work.build("ingest", 1, inputs, settings, make)


def texts(work: Workspace, prompts: Sequence[str]) -> dict[str, Artifact]:
    """Embeds each prompt once for all clips (embedding.safetensors); the text encoder is loaded only for new ones."""
    found = {}
    settings = {"max_sequence_length": work.params.backbone.max_sequence_length, "dtype": work.params.backbone.dtype}
    for prompt in dict.fromkeys(prompts):

        def make(out: Path, _scratch: Path, prompt: str = prompt) -> None:
            work.backbone.keep("text_encoder", "tokenizer")
            save_file(
                {"embedding": work.backbone.encode_texts([prompt])[0].contiguous()}, out / "embedding.safetensors"
            )

        found[prompt] = work.build("text", 1, {"text": sha256_bytes(prompt.encode())}, settings, make)
    return found


def heads(work: Workspace, clip: Clip, ingested: Artifact) -> Artifact:
    """Classifies the backbone's heads on this clip, or once for the backbone; files: heads.parquet, heads.png."""
    params = work.params.heads
    settings = params.model_dump(exclude={"scope_clips"}) | {"precision": work.params.backbone.dtype}
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
        work.backbone.keep("transformer")
        transformer, total = work.backbone.transformer, len(sources) * len(params.noise_levels)
        scores = []
        for latents, text in [(_tensor(i, "dense"), _tensor(t, "embedding")) for i, t in sources]:
            for level in params.noise_levels:
                noise = torch.randn(latents.shape, generator=generator(work.params.seed, "heads", str(level)))
                noised = add_noise(latents, noise, torch.tensor([level]))
                scores.append(
                    head_maps.attention_scores(
                        transformer,
                        noised.to(work.backbone.device, work.backbone.dtype),
                        torch.tensor([1000 * level], device=work.backbone.device),
                        text[None].to(work.backbone.device, work.backbone.dtype),
                        band=params.band,
                        query_rows=params.query_rows,
                    )
                )
                work.progress("heads", len(scores), total)
        spatial, temporal = np.mean(scores, axis=0)
        found = head_maps.label_heads(spatial, temporal, params.alpha)
        head_maps.save_head_map(out / "heads.parquet", found)
        write_image(out / "heads.png", head_map(found.spatial, found.temporal, found.branch))

    return work.build("heads", 1, inputs, settings | {"seed": work.params.seed}, make)


def spatial(work: Workspace, clip: Clip, ingested: Artifact, classified: Artifact) -> Artifact:
    """Stage 2, the appearance LoRA; files: spatial.safetensors (stock layout), losses.json."""
    caption = texts(work, [clip.caption])[clip.caption]
    inputs = {
        "clip": ingested.digest("single.safetensors"),
        "caption": caption.digest("embedding.safetensors"),
        "heads": classified.digest("heads.parquet"),
    }

    def make(out: Path, scratch: Path) -> None:
        work.backbone.keep("transformer")
        found = head_maps.load_head_map(classified.file("heads.parquet"))
        tuned = tuning.tune_spatial(
            work.backbone.transformer,
            found,
            _tensor(ingested, "single"),
            _tensor(caption, "embedding")[None],
            work.params.spatial,
            seed=work.params.seed,
            clip=inputs["clip"],
            checkpoint=scratch / "spatial.safetensors",
            progress=lambda done, total: work.progress("spatial", done, total),
        )
        save_file(adapters.to_stock_layout(tuned.weights, found), out / "spatial.safetensors")
        _write_json(out / "losses.json", tuned.losses)

    return work.build("spatial", 1, inputs, _tuning_settings(work, work.params.spatial.model_dump()), make)


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
        work.backbone.keep("transformer")
        found = head_maps.load_head_map(classified.file("heads.parquet"))
        looks = load_file(appearance.file("spatial.safetensors"))
        with adapters.fused(work.backbone.transformer, {"spatial": (looks, 1.0)}) as transformer:
            tuned = tuning.tune_temporal(
                transformer,
                found,
                _tensor(ingested, name),
                _tensor(caption, "embedding")[None],
                work.params.temporal,
                work.params.sampling,
                work.params.ingest.num_frames,
                seed=work.params.seed,
                clip=inputs["clip"],
                checkpoint=scratch / "temporal.safetensors",
                progress=lambda done, total: work.progress("temporal", done, total),
            )
        facts = {
            "backbone": {"id": work.backbone.id, "digest": work.backbone.digest},
            "clip": {"caption": clip.caption, "digest": inputs["clip"]},
            "ranks": {"spatial": work.params.spatial.rank, "temporal": work.params.temporal.rank},
            "params": work.params.model_dump(mode="json", include={"seed", "sampling", "spatial", "temporal"}),
        }
        motion = adapters.to_stock_layout(tuned.weights, found)
        adapters.save_adapter(out / "adapter", looks, motion, found, facts)
        _write_json(out / "losses.json", tuned.losses)

    return work.build("temporal", 1, inputs, settings, make)


def render(work: Workspace, prompts: Sequence[str], adapter: Path) -> list[Rendered]:
    """Renders every prompt and seed with an adapter's branches fused, and without; files: video.mp4, sheet.png."""
    params = work.params.render
    facts = adapters.read_facts(adapter)
    embedded = texts(work, [*prompts, params.negative_prompt])
    loaded: list[adapters.Adapter] = []
    jobs = [(prompt, seed) for prompt in prompts for seed in params.seeds]
    total, done = len(jobs) * (1 + params.baseline) * params.steps, 0

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
            work.backbone.keep("transformer", "vae")
            if adapted and not loaded:
                loaded.append(adapters.load_adapter(adapter))
            frames = render_frames(
                work.backbone,
                loaded[0] if adapted else None,
                _tensor(embedded[prompt], "embedding"),
                _tensor(embedded[params.negative_prompt], "embedding"),
                params,
                work.params.ingest,
                seed,
                lambda step, _: work.progress("render", start + step, total),
            )
            write_video(out / "video.mp4", frames, work.params.ingest.fps)
            write_image(out / "sheet.png", contact_sheet([(prompt, frames)]))

        artifact = work.build("render", 1, inputs, settings, make)
        done += params.steps
        return artifact

    return [
        Rendered(p, s, one(p, s, adapted=True), one(p, s, adapted=False) if params.baseline else None) for p, s in jobs
    ]


def evaluate(work: Workspace, ingested: Artifact, rendered: Sequence[Rendered]) -> Artifact:
    """Metrics of every rendered video, and of its yardstick, against the reference; files: metrics.json (a list)."""
    scorer = Path(work.params.evaluate.scorer)
    videos = {
        f"video_{i}_{kind}": artifact.digest("video.mp4")
        for i, result in enumerate(rendered)
        for kind, artifact in (("adapter", result.artifact), ("baseline", result.baseline))
        if artifact is not None
    }
    inputs = {
        "clip": ingested.digest("frames.safetensors"),
        **videos,
        "scorer": sha256_tree(scorer) if scorer.is_dir() else "none",
    }
    prompts = [[result.prompt, result.seed] for result in rendered]

    def make(out: Path, _scratch: Path) -> None:
        work.backbone.keep("transformer", "vae")
        reference, clip_scorer = _tensor(ingested, "frames").numpy(), ClipScorer(scorer)
        rows = []
        for index, result in enumerate(rendered):
            row: dict[str, object] = {"prompt": result.prompt, "seed": result.seed}
            for kind, artifact in (("adapter", result.artifact), ("baseline", result.baseline)):
                if artifact is not None:
                    row[kind] = measure(
                        reference, read_frames(artifact.file("video.mp4"))[0], result.prompt, clip_scorer
                    )
            rows.append(row)
            work.progress("evaluate", index + 1, len(rendered))
        _write_json(out / "metrics.json", rows)

    return work.build("evaluate", 1, inputs, {"prompts": prompts}, make)


def measure(reference: np.ndarray, generated: np.ndarray, prompt: str, scorer: ClipScorer) -> dict[str, float]:
    """All metrics of one video, frames uint8 (T, H, W, 3), against the reference's frames and its own prompt."""
    features = scorer.frame_features(generated)
    return {
        "text_similarity": text_similarity(features, scorer.text_features([prompt])),
        "temporal_consistency": temporal_consistency(features),
        **{name: round(float(value), 6) for name, value in vars(compare_motion(reference, generated)).items()},
    }


def _tuning_settings(work: Workspace, section: dict[str, object]) -> dict[str, object]:
    """What a tuning stage's result depends on: its section (not how often it saves), the seed and the precision."""
    section.pop("save_every")
    return {**section, "seed": work.params.seed, "precision": work.params.backbone.dtype}


def _tensor(artifact: Artifact, name: str) -> torch.Tensor:
    return load_file(artifact.file(f"{name}.safetensors"))[name]


def _write_json(path: Path, value: object) -> None:
    path.write_bytes(canonical_json(value))
