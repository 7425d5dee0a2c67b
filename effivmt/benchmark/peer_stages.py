"""The benchmark's own stages, beside those of `effivmt.pipeline.stages`: tuning and rendering by the peers, and the
reconstruction of the reference by the autoencoder."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from effivmt.benchmark.peers import identity, peer_module
from effivmt.catalog import Clip
from effivmt.config import Section
from effivmt.errors import BackboneError
from effivmt.pipeline.stages import RenderedVideo, embed_clip
from effivmt.pipeline.stages.guided_rendering import render_guided
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact

if TYPE_CHECKING:
    import numpy as np

    from effivmt.method.guided import GuidedRequest


def tune(work: Workspace, clip: Clip, ingested: Artifact, *, peer: str, params: Section) -> Artifact:
    """A tuned peer's two LoRAs on all heads; files: adapter/ (the adapter folder).

    BackboneError where the backbone has two transformers, or needs an image.
    """
    _check_backbone(work, peer)
    caption = embed_clip(work, clip)[clip.caption]
    inputs = {
        "clip": ingested.digest("dense.safetensors"),
        "single": ingested.digest("single.safetensors"),
        "caption": caption.digest("embedding.safetensors"),
    }
    settings = {
        "peer": identity(peer),
        **params.model_dump(exclude={"save_every"}),
        "seed": work.params.seed,
        "precision": work.precision,
        **work.kernels(work.params.backbone.differentiable_attention),
    }
    key = work.key("peer_tune", inputs, settings)
    make = partial(_tune, work, clip=clip, ingested=ingested, caption=caption, peer=peer, params=params)
    return work.store.build(key, make)


def render(work: Workspace, ingested: Artifact, prompt: str, *, peer: str, params: Section) -> list[RenderedVideo]:
    """A prompt rendered for each seed by a peer that tunes nothing and guides the sampling; files: video.mp4.

    BackboneError where the backbone has two transformers, or needs an image.
    """
    _check_backbone(work, peer)
    generate = partial(_generate, peer=peer, checkpointing=_needs_checkpointing(work))
    return render_guided(work, ingested, prompt, method=identity(peer), params=params, generate=generate)


def _check_backbone(work: Workspace, peer: str) -> None:
    if work.folder.shape.needs_image:
        raise BackboneError(
            f"backbone {work.folder.id} makes videos of images but {peer} makes them of texts; compare it on another "
            "backbone"
        )
    if work.folder.shape.boundary is not None:
        raise BackboneError(
            f"backbone {work.folder.id} has two transformers but {peer} takes one; compare it on another backbone"
        )


def reconstruct(work: Workspace, ingested: Artifact) -> Artifact:
    """The reference, encoded and decoded: the best that any copy could be; files: video.mp4."""
    inputs = {"clip": ingested.digest("dense.safetensors")}
    settings: dict[str, object] = {"fps": work.params.ingest.fps, "precision": work.precision}
    if work.memory.tiled_decoding:
        settings["tiled"] = True
    return work.store.build(work.key("reconstruct", inputs, settings), partial(_reconstruct, work, ingested=ingested))


def _needs_checkpointing(work: Workspace) -> bool:
    """Whether peers compute activations again in backward passes: as stage 3 does."""
    return work.params.temporal.gradient_checkpointing or work.memory.temporal_checkpointing


def _tune(
    work: Workspace,
    out: Path,
    scratch: Path,
    *,
    clip: Clip,
    ingested: Artifact,
    caption: Artifact,
    peer: str,
    params: Section,
) -> None:
    import numpy as np

    from effivmt.method.adapter import save_adapter
    from effivmt.method.adapter_manifest import AdapterFacts
    from effivmt.method.heads import HeadMap

    work.backbone.keep("transformer")
    digest = ingested.digest("dense.safetensors")
    loras = peer_module(peer).tune(
        work.backbone.transformer,
        load_tensor(ingested, "dense"),
        load_tensor(ingested, "single"),
        load_tensor(caption, "embedding")[None],
        params=params,
        seed=work.params.seed,
        clip=digest,
        checkpoint=scratch / "peer.safetensors",
        progress=work.progress("peer_tune"),
        gradient_checkpointing=_needs_checkpointing(work),
    )
    config = work.backbone.transformer.config
    scores = np.zeros((config["num_layers"], config["num_attention_heads"]))
    heads = HeadMap(scores, scores, scores > 0, decoupled=False)
    facts: AdapterFacts = {
        "backbone": work.backbone.found.facts,
        "clip": {"caption": clip.caption, "digest": digest},
        "params": {"peer": identity(peer), **params.model_dump(mode="json")},
    }
    save_adapter(out / "adapter", loras["spatial"], loras["temporal"], heads, facts=facts)


def _generate(request: "GuidedRequest", params: Section, *, peer: str, checkpointing: bool) -> "np.ndarray":
    """The frames of one video by a peer."""
    from effivmt.benchmark.baselines.features import checkpointed

    with checkpointed(request.backbone.transformer, needed=checkpointing):
        return peer_module(peer).generate(request, params)


def _reconstruct(work: Workspace, out: Path, _scratch: Path, *, ingested: Artifact) -> None:
    from effivmt.media.video import write_video

    work.backbone.keep("vae")
    frames = work.backbone.decode_video(load_tensor(ingested, "dense")[0])
    write_video(out / "video.mp4", frames, work.params.ingest.fps)
