"""Stage spatial: tunes the appearance LoRA on the spatial heads, on single frames (paper, section 3.3)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from effivmt.catalog import Clip
from effivmt.config import LoraParams
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.stages.text_embedding import embed_texts
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key
from effivmt.store.digests import canonical_json

Tuning = TypeVar("Tuning", bound=LoraParams)


def tuning_settings(work: Workspace, params: LoraParams) -> dict[str, object]:
    """What the result of a tuning stage depends on: its section (but not how often it saves), seed and precision."""
    return {
        **params.model_dump(exclude={"save_every"}),
        "seed": work.params.seed,
        "precision": work.precision,
    }


def checkpointed(params: Tuning, needed: bool) -> Tuning:
    """The params of a tuning, with gradient checkpointing where they or the memory ask for it."""
    return params.model_copy(update={"gradient_checkpointing": params.gradient_checkpointing or needed})


@dataclass(frozen=True)
class SpatialInputs:
    """The artifacts that stage 2 reads."""

    ingested: Artifact
    caption: Artifact
    classified: Artifact


def spatial_key(work: Workspace, inputs: SpatialInputs) -> Key:
    """The store key."""
    digests = {
        "clip": inputs.ingested.digest("single.safetensors"),
        "caption": inputs.caption.digest("embedding.safetensors"),
        "heads": inputs.classified.digest("heads.parquet"),
    }
    return work.key("spatial", digests, tuning_settings(work, work.params.spatial))


def spatial(work: Workspace, clip: Clip, ingested: Artifact, classified: Artifact) -> Artifact:
    """Stage 2, the appearance LoRA; files: spatial.safetensors (stock layout), losses.json.

    Without steps there are no weights and no losses.
    """
    caption = embed_texts(work, [clip.caption])[clip.caption]
    inputs = SpatialInputs(ingested, caption, classified)
    key = spatial_key(work, inputs)
    return work.store.build(key, partial(_tune, work, inputs=inputs), force=work.forces(key))


def _tune(work: Workspace, out: Path, scratch: Path, *, inputs: SpatialInputs) -> None:
    from safetensors.torch import save_file

    from effivmt.method.adapter import to_stock_layout
    from effivmt.method.heads import load_head_map
    from effivmt.method.tuning import tune_spatial

    if work.params.spatial.steps == 0:
        save_file({}, out / "spatial.safetensors")
        (out / "losses.json").write_bytes(canonical_json({}))
        return
    work.backbone.keep("transformer")
    heads = load_head_map(inputs.classified.file("heads.parquet"))
    tuned = tune_spatial(
        work.backbone.transformer,
        heads,
        load_tensor(inputs.ingested, "single"),
        load_tensor(inputs.caption, "embedding")[None],
        params=checkpointed(work.params.spatial, work.memory.spatial_checkpointing),
        seed=work.params.seed,
        clip=inputs.ingested.digest("single.safetensors"),
        checkpoint=scratch / "spatial.safetensors",
        progress=work.progress("spatial"),
        on_divergence=work.callback.on_divergence,
    )
    save_file(to_stock_layout(tuned.weights, heads), out / "spatial.safetensors")
    (out / "losses.json").write_bytes(canonical_json(tuned.losses))
