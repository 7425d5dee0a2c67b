"""Stage temporal: tunes the motion LoRA on the temporal heads, on sparse frames (paper, section 3.4)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from effivmt.catalog import Clip
from effivmt.pipeline.stages.spatial_tuning import tuning_settings
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.stages.text_embedding import embed_texts
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key
from effivmt.store.digests import canonical_json

_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class TemporalInputs:
    """The artifacts that stage 3 reads; `seen` is of `ingest` or, for a part of the motion, of `mask`."""

    seen: Artifact
    caption: Artifact
    classified: Artifact
    appearance: Artifact


def latents_name(work: Workspace) -> str:
    """The latents of the seen artifact that stage 3 tunes on: those of the sampled frames or of the whole clip."""
    return "sampled" if work.params.sampling.mode == "pixel" else "dense"


def temporal_key(work: Workspace, inputs: TemporalInputs) -> Key:
    """The store key."""
    digests = {
        "clip": inputs.seen.digest(f"{latents_name(work)}.safetensors"),
        "caption": inputs.caption.digest("embedding.safetensors"),
        "heads": inputs.classified.digest("heads.parquet"),
        "spatial": inputs.appearance.digest("spatial.safetensors"),
    }
    if _WEIGHTS in inputs.seen.files:
        digests["weights"] = inputs.seen.digest(_WEIGHTS)
    settings = tuning_settings(work, work.params.temporal) | {"precision": work.adapted_precision}
    settings |= {"sampling": work.params.sampling.model_dump(), "num_frames": work.params.ingest.num_frames}
    return work.key("temporal", digests, settings)


def temporal(work: Workspace, clip: Clip, seen: Artifact, classified: Artifact, *, appearance: Artifact) -> Artifact:
    """Stage 3, the motion LoRA over the merged appearance LoRA; files: adapter/ (the adapter folder), losses.json.

    seen: the artifact of `ingest` or, where a part of the clip's motion is wanted, that of `mask`.
    """
    caption = embed_texts(work, [clip.caption])[clip.caption]
    inputs = TemporalInputs(seen, caption, classified, appearance)
    key = temporal_key(work, inputs)
    return work.store.build(key, partial(_tune, work, clip=clip, inputs=inputs), force=work.forces(key))


def _tune(work: Workspace, out: Path, scratch: Path, *, clip: Clip, inputs: TemporalInputs) -> None:
    from safetensors.torch import load_file

    from effivmt.method.adapter import fused, save_adapter, to_stock_layout
    from effivmt.method.adapter_manifest import AdapterFacts
    from effivmt.method.heads import load_head_map
    from effivmt.method.tuning import tune_temporal

    backbone, params = work.backbone, work.params
    backbone.keep("transformer")
    digest = inputs.seen.digest(f"{latents_name(work)}.safetensors")
    heads = load_head_map(inputs.classified.file("heads.parquet"))
    looks = load_file(inputs.appearance.file("spatial.safetensors"))
    with fused(backbone.transformer, {"spatial": (looks, 1.0)}) as transformer:
        tuned = tune_temporal(
            transformer,
            heads,
            load_tensor(inputs.seen, latents_name(work)),
            load_tensor(inputs.caption, "embedding")[None],
            params=params.temporal,
            sampling=params.sampling,
            num_frames=params.ingest.num_frames,
            seed=params.seed,
            clip=digest,
            checkpoint=scratch / "temporal.safetensors",
            weights=load_tensor(inputs.seen, "weights") if _WEIGHTS in inputs.seen.files else None,
            progress=work.progress("temporal"),
            on_divergence=work.callback.on_divergence,
        )
    facts: AdapterFacts = {
        "backbone": backbone.found.facts,
        "clip": {"caption": clip.caption, "digest": digest},
        "ranks": {"spatial": params.spatial.rank if looks else 0, "temporal": params.temporal.rank},
        "params": params.model_dump(mode="json", include={"seed", "sampling", "spatial", "temporal"}),
    }
    motion = to_stock_layout(tuned.weights, heads)
    save_adapter(out / "adapter", looks, motion, heads, facts=facts)
    (out / "losses.json").write_bytes(canonical_json(tuned.losses))
