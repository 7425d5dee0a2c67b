"""Stage spatial: tunes the appearance LoRA on the spatial heads, on single frames (paper, section 3.3)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from effivmt.catalog import Clip
from effivmt.config import LoraParams
from effivmt.method.experts import Expert
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.stages.text_embedding import embed_texts
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key
from effivmt.store.digests import canonical_json

if TYPE_CHECKING:
    from effivmt.method.heads import HeadMap
    from effivmt.method.tuning import Progress, TuningResult

Tuning = TypeVar("Tuning", bound=LoraParams)


def tuning_settings(work: Workspace, params: LoraParams) -> dict[str, object]:
    """What the result of a tuning stage depends on: its section (but not how often it saves), seed and precision."""
    return {
        **params.model_dump(exclude={"save_every"}),
        "seed": work.params.seed,
        "precision": work.precision,
        **work.kernels(work.params.backbone.differentiable_attention, compiled=True),
    }


def checkpointed(params: Tuning, needed: bool) -> Tuning:
    """The params of a tuning, with gradient checkpointing where they or the memory ask for it."""
    return params.model_copy(update={"gradient_checkpointing": params.gradient_checkpointing or needed})


def digests_of(work: Workspace, artifact: Artifact, word: str, suffix: str) -> dict[str, str]:
    """Digests of the files `word` of each expert in an artifact, by the expert's name for it."""
    names = [expert.named(word) for expert in work.experts]
    return {name: artifact.digest(f"{name}.{suffix}") for name in names}


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
        **digests_of(work, inputs.classified, "heads", "parquet"),
    }
    return work.key("spatial", digests, tuning_settings(work, work.params.spatial))


def spatial(work: Workspace, clip: Clip, ingested: Artifact, classified: Artifact) -> Artifact:
    """Stage 2, the appearance LoRA of each expert; files: spatial.safetensors (stock layout), losses.json.

    Of two experts, one after another: spatial_high_noise.safetensors and spatial_low_noise.safetensors. Without steps
    there are no weights and no losses.
    """
    caption = embed_texts(work, [clip.caption])[clip.caption]
    inputs = SpatialInputs(ingested, caption, classified)
    key = spatial_key(work, inputs)
    return work.store.build(key, partial(_tune, work, inputs=inputs), force=work.forces(key))


def _tune(work: Workspace, out: Path, scratch: Path, *, inputs: SpatialInputs) -> None:
    from safetensors.torch import save_file

    from effivmt.method.adapter import to_stock_layout
    from effivmt.method.heads import load_head_map

    losses: dict[str, list[float]] = {}
    for number, expert in enumerate(work.experts):
        file = f"{expert.named('spatial')}.safetensors"
        if work.params.spatial.steps == 0:
            save_file({}, out / file)
            continue
        with inputs.classified.opened(f"{expert.named('heads')}.parquet") as path:
            heads = load_head_map(path)
        progress = work.progress("spatial", number, len(work.experts))
        tuned = _tune_expert(work, expert, heads, inputs=inputs, checkpoint=scratch / file, progress=progress)
        save_file(to_stock_layout(tuned.weights, heads), out / file)
        losses |= {expert.named(name): curve for name, curve in tuned.losses.items()}
    (out / "losses.json").write_bytes(canonical_json(losses))


def _tune_expert(
    work: Workspace, expert: Expert, heads: "HeadMap", *, inputs: SpatialInputs, checkpoint: Path, progress: "Progress"
) -> "TuningResult":
    """Tunes one transformer, with no other in memory."""
    from effivmt.method.compiling import compiled_blocks
    from effivmt.method.tuning import tune_spatial

    work.backbone.keep(expert.component)
    transformer = work.backbone.transformer_of(expert)
    with compiled_blocks(transformer, needed=work.params.backbone.compile):
        return tune_spatial(
            transformer,
            heads,
            load_tensor(inputs.ingested, "single"),
            load_tensor(inputs.caption, "embedding")[None],
            params=checkpointed(work.params.spatial, work.memory.spatial_checkpointing),
            seed=work.params.seed,
            clip=inputs.ingested.digest("single.safetensors"),
            checkpoint=checkpoint,
            progress=progress,
            on_divergence=work.callback.on_notice,
            expert=expert,
        )
