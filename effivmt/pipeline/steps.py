"""The work of the pipeline's steps: what `effivmt.pipeline.stages` runs where the store does not have a result.

Each function writes the files of one artifact into its folder `out`. It stands apart because it needs torch and
diffusers, which take seconds to import and which a run whose results are all in the store never needs.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.evaluation.measure import load_metric_models, measure
from effivmt.media.figures import contact_sheet, head_map
from effivmt.media.video import probe, read_clip, read_frames, read_images, write_image, write_video
from effivmt.method import adapter as adapters
from effivmt.method import heads as head_maps
from effivmt.method import tuning
from effivmt.method.backbone import Backbone
from effivmt.method.losses import add_noise
from effivmt.method.rendering import render as render_frames
from effivmt.method.rope import sampled_indices
from effivmt.method.seeding import generator
from effivmt.method.verbosity import silence_libraries
from effivmt.store.artifact import Artifact
from effivmt.store.digests import canonical_json

silence_libraries()

Units = Callable[[int, int], None]
"""Called with (units done, units in all)."""


def ingest(backbone: Backbone, params: Params, clip: Clip, out: Path, progress: Units) -> None:
    """Decodes, trims and resamples a clip and encodes it: whole, its frames one by one, and its sampled frames."""
    sampling = params.sampling
    size = {"height": params.ingest.height, "width": params.ingest.width}
    frames = read_clip(
        clip.video, fps=params.ingest.fps, num_frames=params.ingest.num_frames, start=clip.start, end=clip.end, **size
    )
    images = frames if clip.appearance_images is None else read_images(clip.appearance_images, **size)
    sampled = [
        frames[sampled_indices(len(frames), sampling.frames, phase / sampling.phases)]
        for phase in range(sampling.phases if sampling.mode == "pixel" else 0)
    ]
    total, done = 1 + len(images) + len(sampled), 0

    def encode(video: np.ndarray) -> torch.Tensor:
        nonlocal done
        latents = backbone.encode_video(video)
        done += 1
        progress(done, total)
        return latents

    latents = {"dense": encode(frames)[None], "single": torch.stack([encode(image[None]) for image in images])}
    if sampled:
        latents["sampled"] = torch.stack([encode(video) for video in sampled])
    for name, tensor in latents.items():
        save_file({name: tensor.contiguous()}, out / f"{name}.safetensors")
    save_file({"frames": torch.from_numpy(np.ascontiguousarray(frames))}, out / "frames.safetensors")
    facts = {name: value for name, value in asdict(probe(clip.video)).items() if name != "path"}
    (out / "probe.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def text(backbone: Backbone, prompt: str, out: Path) -> None:
    """Embeds one prompt."""
    backbone.keep("text_encoder", "tokenizer")
    save_file({"embedding": backbone.encode_texts([prompt])[0].contiguous()}, out / "embedding.safetensors")


def heads(
    backbone: Backbone, params: Params, sources: Sequence[tuple[Artifact, Artifact]], out: Path, progress: Units
) -> None:
    """Classifies the heads by their scores averaged over clips (ingest and text artifact of each) and noise levels.

    heads.png shows the classification; heads.parquet says which heads each branch gets, by `heads.split`.
    """
    backbone.keep("transformer")
    total, scores = len(sources) * len(params.heads.noise_levels), []
    for ingested, embedded in sources:
        latents, embedding = _tensor(ingested, "dense"), _tensor(embedded, "embedding")
        for level in params.heads.noise_levels:
            noise = torch.randn(latents.shape, generator=generator(params.seed, "heads", str(level)))
            noised = add_noise(latents, noise, torch.tensor([level]))
            scores.append(
                head_maps.attention_scores(
                    backbone.transformer,
                    noised.to(backbone.device, backbone.dtype),
                    torch.tensor([1000 * level], device=backbone.device),
                    embedding[None].to(backbone.device, backbone.dtype),
                    band=params.heads.band,
                    query_rows=params.heads.query_rows,
                )
            )
            progress(len(scores), total)
    spatial_scores, temporal_scores = np.mean(scores, axis=0)
    found = head_maps.label_heads(spatial_scores, temporal_scores, params.heads.alpha)
    random = generator(params.seed, "split", *(ingested.digest("dense.safetensors") for ingested, _ in sources))
    head_maps.save_head_map(out / "heads.parquet", head_maps.split_heads(found, params.heads.split, random))
    write_image(out / "heads.png", head_map(found.spatial, found.temporal, found.branch))


def spatial(
    backbone: Backbone,
    params: Params,
    ingested: Artifact,
    caption: Artifact,
    classified: Artifact,
    out: Path,
    scratch: Path,
    progress: Units,
) -> None:
    """Stage 2, the appearance LoRA on single frames; no weights where it has no steps."""
    if params.spatial.steps == 0:
        save_file({}, out / "spatial.safetensors")
        _write_json(out / "losses.json", {})
        return
    backbone.keep("transformer")
    found = head_maps.load_head_map(classified.file("heads.parquet"))
    tuned = tuning.tune_spatial(
        backbone.transformer,
        found,
        _tensor(ingested, "single"),
        _tensor(caption, "embedding")[None],
        params=params.spatial,
        seed=params.seed,
        clip=ingested.digest("single.safetensors"),
        checkpoint=scratch / "spatial.safetensors",
        progress=progress,
    )
    save_file(adapters.to_stock_layout(tuned.weights, found), out / "spatial.safetensors")
    _write_json(out / "losses.json", tuned.losses)


def temporal(
    backbone: Backbone,
    params: Params,
    clip: Clip,
    latents: tuple[Artifact, str],
    caption: Artifact,
    classified: Artifact,
    appearance: Artifact,
    out: Path,
    scratch: Path,
    progress: Units,
) -> None:
    """Stage 3, the motion LoRA over the merged appearance LoRA; `latents`: ingest's artifact and which of its files."""
    backbone.keep("transformer")
    ingested, name = latents
    digest = ingested.digest(f"{name}.safetensors")
    found = head_maps.load_head_map(classified.file("heads.parquet"))
    looks = load_file(appearance.file("spatial.safetensors"))
    with adapters.fused(backbone.transformer, {"spatial": (looks, 1.0)}) as transformer:
        tuned = tuning.tune_temporal(
            transformer,
            found,
            _tensor(ingested, name),
            _tensor(caption, "embedding")[None],
            params=params.temporal,
            sampling=params.sampling,
            num_frames=params.ingest.num_frames,
            seed=params.seed,
            clip=digest,
            checkpoint=scratch / "temporal.safetensors",
            progress=progress,
        )
    facts = {
        "backbone": {"id": backbone.id, "digest": backbone.digest},
        "clip": {"caption": clip.caption, "digest": digest},
        "ranks": {"spatial": params.spatial.rank if looks else 0, "temporal": params.temporal.rank},
        "params": params.model_dump(mode="json", include={"seed", "sampling", "spatial", "temporal"}),
    }
    motion = adapters.to_stock_layout(tuned.weights, found)
    adapters.save_adapter(out / "adapter", looks, motion, found, facts=facts)
    _write_json(out / "losses.json", tuned.losses)


def render(
    backbone: Backbone,
    params: Params,
    adapter: adapters.Adapter | None,
    prompt: tuple[str, Artifact],
    negative: Artifact,
    seed: int,
    out: Path,
    progress: Units,
) -> None:
    """Renders one prompt (its words and embedding) and seed, with an adapter's branches fused or without."""
    backbone.keep("transformer", "vae")
    frames = render_frames(
        backbone,
        adapter,
        _tensor(prompt[1], "embedding"),
        _tensor(negative, "embedding"),
        params=params.render,
        size=params.ingest,
        seed=seed,
        progress=progress,
    )
    write_video(out / "video.mp4", frames, params.ingest.fps)
    write_image(out / "sheet.png", contact_sheet([(prompt[0], frames)]))


def evaluate(
    backbone: Backbone,
    scorer: Path,
    tracker: Path | None,
    caption: str,
    ingested: Artifact,
    videos: Sequence[tuple[str, int, dict[str, Artifact]]],
    out: Path,
    progress: Units,
) -> None:
    """Measures videos against the reference and its caption; each of `videos`: prompt, seed, and artifact by kind.

    scorer: a CLIP model folder; tracker: a CoTracker checkpoint, or None for Lucas-Kanade.
    """
    backbone.keep("transformer", "vae")
    reference, instruments = _tensor(ingested, "frames").numpy(), load_metric_models(scorer, tracker)
    rows = []
    for prompt, seed, artifacts in videos:
        row: dict[str, object] = {"prompt": prompt, "seed": seed}
        for kind, artifact in artifacts.items():
            row[kind] = measure(
                reference, read_frames(artifact.file("video.mp4"))[0], prompt, instruments, caption=caption
            )
        rows.append(row)
        progress(len(rows), len(videos))
    _write_json(out / "metrics.json", rows)


def _tensor(artifact: Artifact, name: str) -> torch.Tensor:
    return load_file(artifact.file(f"{name}.safetensors"))[name]


def _write_json(path: Path, value: object) -> None:
    path.write_bytes(canonical_json(value))
