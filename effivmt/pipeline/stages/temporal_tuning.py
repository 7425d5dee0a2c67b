"""Stage temporal: tunes the motion LoRA on the temporal heads, on sparse frames (paper, section 3.4)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from effivmt.catalog import Clip
from effivmt.method.adapter_manifest import REGION
from effivmt.method.experts import Expert
from effivmt.pipeline.stages.first_frame import FILE as FIRST_FRAME
from effivmt.pipeline.stages.first_frame import first_frame, load_first_frame
from effivmt.pipeline.stages.previewing import TunedPreview, preview_steps, show_tuned
from effivmt.pipeline.stages.spatial_tuning import checkpointed, digests_of, tuning_settings
from effivmt.pipeline.stages.tensors import load_tensor, load_tensors
from effivmt.pipeline.stages.text_embedding import embed_clip, embed_texts
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key
from effivmt.store.digests import canonical_json

if TYPE_CHECKING:
    from effivmt.method.adapter import LoraPair
    from effivmt.method.tuning import Progress

_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class TemporalInputs:
    """The artifacts that stage 3 reads; `ingested` is of `ingest` or, for a part of the motion, of `mask`.

    first: the first frame of it, where one is given.
    """

    ingested: Artifact
    caption: Artifact
    classified: Artifact
    appearance: Artifact
    first: Artifact | None = None


def latents_name(work: Workspace) -> str:
    """The latents of the ingest artifact that stage 3 tunes on: those of the sampled frames or of the whole clip."""
    return "sampled" if work.params.sampling.mode == "pixel" else "dense"


def temporal_key(work: Workspace, inputs: TemporalInputs) -> Key:
    """The store key."""
    digests = {
        "clip": inputs.ingested.digest(f"{latents_name(work)}.safetensors"),
        "caption": inputs.caption.digest("embedding.safetensors"),
        **digests_of(work, inputs.classified, "heads", "parquet"),
        **digests_of(work, inputs.appearance, "spatial", "safetensors"),
    }
    if _WEIGHTS in inputs.ingested.files:
        digests["weights"] = inputs.ingested.digest(_WEIGHTS)
    if REGION in inputs.ingested.files:
        digests["region"] = inputs.ingested.digest(REGION)
    if inputs.first is not None:
        digests["first_frame"] = inputs.first.digest(FIRST_FRAME)
    settings = tuning_settings(work, work.params.temporal) | {"precision": work.adapted_precision}
    settings |= {"sampling": work.params.sampling.model_dump(), "num_frames": work.params.ingest.num_frames}
    return work.key("temporal", digests, settings)


def temporal(
    work: Workspace, clip: Clip, ingested: Artifact, classified: Artifact, *, appearance: Artifact
) -> Artifact:
    """Stage 3, the motion LoRA over the merged appearance LoRA; files: adapter/ (the adapter folder), losses.json.

    Of two experts each gets its own, one after another. ingested: the artifact of `ingest` or, where a part of the
    clip's motion is wanted, that of `mask`. Pauses for previews where the workspace has a folder for them.
    """
    if work.previews is not None:
        embed_clip(work, clip)
    caption = embed_texts(work, [clip.caption])[clip.caption]
    first = first_frame(work, ingested) if work.gives_first_frame(clip) else None
    inputs = TemporalInputs(ingested, caption, classified, appearance, first)
    key = temporal_key(work, inputs)
    return work.store.build(key, partial(_tune, work, clip=clip, inputs=inputs), force=work.forces(key))


def _tune(work: Workspace, out: Path, scratch: Path, *, clip: Clip, inputs: TemporalInputs) -> None:
    from effivmt.method.adapter import save_adapter
    from effivmt.method.adapter_manifest import AdapterFacts

    params, found = work.params, work.folder
    pairs: list[LoraPair] = []
    losses: dict[str, list[float]] = {}
    for number, expert in enumerate(work.experts):
        progress = work.progress("temporal", number, len(work.experts))
        pair, curves = _tune_expert(work, expert, clip=clip, inputs=inputs, scratch=scratch, progress=progress)
        pairs.append(pair)
        losses |= {expert.named(name): curve for name, curve in curves.items()}
    own, *others = pairs
    facts: AdapterFacts = {
        "backbone": found.facts,
        "clip": {"caption": clip.caption, "digest": inputs.ingested.digest(f"{latents_name(work)}.safetensors")},
        "ranks": {"spatial": params.spatial.rank if own.spatial else 0, "temporal": params.temporal.rank},
        "params": params.model_dump(mode="json", include={"seed", "sampling", "spatial", "temporal"}),
    }
    if found.shape.settings:
        facts["pipeline"] = found.shape.settings
    save_adapter(
        out / "adapter",
        own.spatial,
        own.temporal,
        own.heads,
        facts=facts,
        low_noise=others[0] if others else None,
        region=load_tensor(inputs.ingested, "region") if REGION in inputs.ingested.files else None,
    )
    (out / "losses.json").write_bytes(canonical_json(losses))


def _tune_expert(
    work: Workspace, expert: Expert, *, clip: Clip, inputs: TemporalInputs, scratch: Path, progress: "Progress"
) -> "tuple[LoraPair, dict[str, list[float]]]":
    """Both LoRAs of one transformer, tuned with no other in memory, and the losses."""
    from effivmt.method.adapter import LoraPair, fused, to_stock_layout
    from effivmt.method.compiling import compiled_blocks
    from effivmt.method.heads import load_head_map
    from effivmt.method.low_memory import activations_on_host
    from effivmt.method.tuning import tune_temporal

    backbone, params = work.backbone, work.params
    with inputs.classified.opened(f"{expert.named('heads')}.parquet") as path:
        heads = load_head_map(path)
    looks = load_tensors(inputs.appearance, expert.named("spatial"))

    steps = [] if work.previews is None else preview_steps(params.temporal)
    for number, until in enumerate((*steps, None), 1):
        backbone.keep(expert.component)
        waiting = activations_on_host(backbone.device, needed=work.memory.activations_on_host)
        with (
            fused(backbone.transformer_of(expert), {"spatial": (looks, 1.0)}) as transformer,
            compiled_blocks(transformer, needed=params.backbone.compile),
            waiting,
        ):
            tuned = tune_temporal(
                transformer,
                heads,
                load_tensor(inputs.ingested, latents_name(work)),
                load_tensor(inputs.caption, "embedding")[None],
                params=checkpointed(params.temporal, work.memory.temporal_checkpointing),
                sampling=params.sampling,
                num_frames=params.ingest.num_frames,
                seed=params.seed,
                clip=inputs.ingested.digest(f"{latents_name(work)}.safetensors"),
                checkpoint=scratch / f"{expert.named('temporal')}.safetensors",
                weights=load_tensor(inputs.ingested, "weights") if _WEIGHTS in inputs.ingested.files else None,
                first=None if inputs.first is None else load_first_frame(inputs.first),
                progress=progress,
                on_divergence=work.callback.on_notice,
                expert=expert,
                until=until,
            )
        pair = LoraPair(looks, to_stock_layout(tuned.weights, heads), heads)
        if until is not None:
            show_tuned(work, clip, TunedPreview(number, until, len(tuned.losses["denoising"]), pair), scratch)
    return pair, tuned.losses
