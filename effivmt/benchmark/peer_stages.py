"""The benchmark's own stages, beside those of `effivmt.pipeline.stages`: tuning and rendering by the peers, and the
reconstruction of the reference by the autoencoder."""

from functools import partial
from pathlib import Path

from effivmt.benchmark.peers import identity, peer_module
from effivmt.catalog import Clip
from effivmt.config import Section
from effivmt.errors import BackboneError
from effivmt.pipeline.stages import RenderedVideo, embed_clip, embed_texts
from effivmt.pipeline.stages.rendering import sampling_settings
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact


def tune(work: Workspace, clip: Clip, ingested: Artifact, *, peer: str, params: Section) -> Artifact:
    """A tuned peer's two LoRAs on all heads; files: adapter/ (the adapter folder).

    BackboneError where the backbone has two transformers.
    """
    _check_one_transformer(work, peer)
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
        "precision": work.precision(),
        **work.kernels(work.params.backbone.differentiable_attention),
    }
    key = work.key("peer_tune", inputs, settings)
    make = partial(_tune, work, clip=clip, ingested=ingested, caption=caption, peer=peer, params=params)
    return work.store.build(key, make)


def render(work: Workspace, ingested: Artifact, prompt: str, *, peer: str, params: Section) -> list[RenderedVideo]:
    """A prompt rendered for each seed by a peer that tunes nothing and guides the sampling; files: video.mp4.

    BackboneError where the backbone has two transformers.
    """
    _check_one_transformer(work, peer)
    own = work.params.render
    embeddings = embed_texts(work, [prompt, own.negative_prompt])
    inputs = {
        "clip": ingested.digest("dense.safetensors"),
        "prompt": embeddings[prompt].digest("embedding.safetensors"),
        "negative": embeddings[own.negative_prompt].digest("embedding.safetensors"),
    }
    unread = {"seeds", "baseline", "appearance_strength", "motion_strength"}
    settings: dict[str, object] = {
        "peer": identity(peer),
        "params": params.model_dump(),
        "render": sampling_settings(own, unread),
        "ingest": work.params.ingest.model_dump(),
        "precision": work.precision(),
        **work.kernels(work.params.backbone.attention),
    }
    if work.memory.tiled_decoding:  # as in the pipeline's own stage
        settings["tiled"] = True
    pair = (embeddings[prompt], embeddings[own.negative_prompt])
    videos = []
    for seed in own.seeds:
        make = partial(_render, work, ingested=ingested, embeddings=pair, seed=seed, peer=peer, params=params)
        artifact = work.store.build(work.key("peer_render", inputs, settings | {"seed": seed}), make)
        videos.append(RenderedVideo(prompt, seed, artifact, None))
    return videos


def _check_one_transformer(work: Workspace, peer: str) -> None:
    if work.folder.shape.boundary is not None:
        raise BackboneError(
            f"backbone {work.folder.id} has two transformers but {peer} takes one; compare it on another backbone"
        )


def reconstruct(work: Workspace, ingested: Artifact) -> Artifact:
    """The reference, encoded and decoded: the best that any copy could be; files: video.mp4."""
    inputs = {"clip": ingested.digest("dense.safetensors")}
    settings: dict[str, object] = {"fps": work.params.ingest.fps, "precision": work.precision()}
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


def _render(
    work: Workspace,
    out: Path,
    _scratch: Path,
    *,
    ingested: Artifact,
    embeddings: tuple[Artifact, Artifact],
    seed: int,
    peer: str,
    params: Section,
) -> None:
    from effivmt.benchmark.baselines.features import checkpointed
    from effivmt.benchmark.baselines.guided import GuidedRequest
    from effivmt.media.video import write_video

    work.backbone.keep("transformer", "vae")
    request = GuidedRequest(
        backbone=work.backbone,
        reference=load_tensor(ingested, "dense"),
        prompt=load_tensor(embeddings[0], "embedding"),
        negative=load_tensor(embeddings[1], "embedding"),
        render=work.params.render,
        size=work.params.ingest,
        seed=seed,
        progress=work.progress("peer_render"),
    )
    with checkpointed(work.backbone.transformer, needed=_needs_checkpointing(work)):
        frames = peer_module(peer).generate(request, params)
    write_video(out / "video.mp4", frames, work.params.ingest.fps)


def _reconstruct(work: Workspace, out: Path, _scratch: Path, *, ingested: Artifact) -> None:
    from effivmt.media.video import write_video

    work.backbone.keep("vae")
    frames = work.backbone.decode_video(load_tensor(ingested, "dense")[0])
    write_video(out / "video.mp4", frames, work.params.ingest.fps)
