"""Stage heads: classifies the attention heads of the backbone into spatial and temporal (paper, section 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from effivmt.catalog import Clip
from effivmt.errors import BackboneError, EffiVMTError
from effivmt.method.experts import Expert
from effivmt.pipeline.stages.first_frame import FILE as FIRST_FRAME
from effivmt.pipeline.stages.first_frame import first_frame, load_first_frame
from effivmt.pipeline.stages.ingestion import ingest
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.stages.text_embedding import embed_clip, embed_texts
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class HeadSource:
    """One clip that the scores are averaged over: its ingest artifact and the embedding of its text.

    first: its own first frame, where one is given.
    """

    ingested: Artifact
    embedding: Artifact
    first: Artifact | None = None


def heads_key(work: Workspace, sources: Sequence[HeadSource]) -> Key:
    """The store key."""
    params = work.params.heads
    settings = params.model_dump(exclude={"scope_clips"}) | {"precision": work.precision}
    if params.split == "classified":  # keys made before there were other splits do not have it
        settings.pop("split")
    if params.criterion == "output_error":  # it reads no alpha
        settings.pop("alpha")
    if params.scope == "clip":
        (source,) = sources
        inputs = {
            "clip": source.ingested.digest("dense.safetensors"),
            "caption": source.embedding.digest("embedding.safetensors"),
        }
    else:
        inputs = {f"scope_{i}": source.ingested.digest("dense.safetensors") for i, source in enumerate(sources)}
    for number, source in enumerate(sources):
        if source.first is not None:
            inputs[f"first_frame_{number}"] = source.first.digest(FIRST_FRAME)
    if names := [expert.name for expert in work.experts if expert.name]:
        settings["experts"] = names
    settings |= work.kernels(work.params.backbone.attention)
    return work.key("heads", inputs, settings | {"seed": work.params.seed})


def scope_clips(work: Workspace, clip: Clip) -> list[Clip]:
    """The clips that `heads.scope: backbone` averages over; EffiVMTError where the params name none."""
    videos = work.params.heads.scope_clips
    if not videos:
        raise EffiVMTError(
            "heads.scope is backbone but heads.scope_clips is empty; list the video files to average over"
        )
    return [
        Clip(clip="scope", video=Path(video), caption=clip.caption, prompts=clip.prompts, images=clip.images)
        for video in videos
    ]


def heads(work: Workspace, clip: Clip, ingested: Artifact) -> Artifact:
    """Classifies the backbone's heads on this clip, or once for the backbone; files: heads.parquet, heads.png.

    Embeds the texts of the later stages too (`embed_clip`). heads.png shows the classification; heads.parquet says
    which heads each branch gets, by `heads.split`. Of two experts there are heads_high_noise.parquet and
    heads_low_noise.parquet, each classified at the noise levels of its own, and one picture.
    """
    texts = embed_clip(work, clip)
    if work.params.heads.scope == "clip":
        clips, embedding = [ingested], texts[clip.caption]
    else:
        clips, embedding = [ingest(work, other) for other in scope_clips(work, clip)], embed_texts(work, [""])[""]
    sources = [
        HeadSource(it, embedding, first_frame(work, it) if work.gives_first_frame(clip) else None) for it in clips
    ]
    key = heads_key(work, sources)
    return work.store.build(key, partial(_classify, work, sources=sources), force=work.forces(key))


def _classify(work: Workspace, out: Path, _scratch: Path, *, sources: Sequence[HeadSource]) -> None:
    import numpy as np

    from effivmt.media.figures import head_map, stacked
    from effivmt.media.video import write_image
    from effivmt.method.heads import label_heads, save_head_map, split_heads
    from effivmt.method.seeding import generator

    params, progress = work.params.heads, work.progress("heads")
    jobs = [
        _Job(expert, source, level)
        for expert in work.experts
        for source in sources
        for level in params.noise_levels
        if expert.takes(level)
    ]
    maps = {}
    for expert in work.experts:
        scores = []
        for number, job in enumerate(jobs, 1):
            if job.expert == expert:
                scores.append(_scores(work, job))
                progress(number, len(jobs))
        spatial_scores, temporal_scores = np.mean(scores, axis=0)
        alpha = params.alpha if params.criterion == "attention_mass" else 1.0
        found = label_heads(spatial_scores, temporal_scores, alpha)
        digests = [source.ingested.digest("dense.safetensors") for source in sources]
        random = generator(work.params.seed, "split", *digests)
        save_head_map(out / f"{expert.named('heads')}.parquet", split_heads(found, params.split, random))
        maps[expert.name.replace("_", " ")] = head_map(found.spatial, found.temporal, found.branch)
    write_image(out / "heads.png", stacked(maps))


@dataclass(frozen=True)
class _Job:
    """One forward: an expert looks at a clip at a noise level."""

    expert: Expert
    source: HeadSource
    level: float


def _scores(work: Workspace, job: _Job) -> "tuple[np.ndarray, np.ndarray]":
    """Spatial and temporal scores, each float64 (L, N), with no other transformer in memory."""
    import numpy as np
    import torch

    from effivmt.method.head_scores import attention_scores
    from effivmt.method.losses import add_noise
    from effivmt.method.seeding import generator

    backbone, params, level = work.backbone, work.params.heads, job.level
    backbone.keep(job.expert.component, frozen=True)
    latents, embedding = load_tensor(job.source.ingested, "dense"), load_tensor(job.source.embedding, "embedding")
    noise = torch.randn(latents.shape, generator=generator(work.params.seed, "heads", str(level)))
    scores = attention_scores(
        backbone.frozen_of(job.expert),
        add_noise(latents, noise, torch.tensor([level])).to(backbone.device, backbone.dtype),
        torch.tensor([1000 * level], device=backbone.device),
        embedding[None].to(backbone.device, backbone.dtype),
        band=params.band,
        query_rows=params.query_rows,
        criterion=params.criterion,
        expert=job.expert,
        first=None if job.source.first is None else load_first_frame(job.source.first),
    )
    if not np.isfinite(scores).all():
        raise BackboneError(
            f"backbone {backbone.id}: its attention is not finite at noise level {level:g}; its weights are "
            "damaged, or backbone.dtype is too narrow for it"
        )
    return scores
