"""Stage peer_render: renders a prompt by a method that tunes nothing and guides the sampling by the reference."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effivmt.config import Section
from effivmt.pipeline.stages.rendering import ADAPTER_FIELDS, RenderedVideo, sampling_settings
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.stages.text_embedding import embed_texts
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact

if TYPE_CHECKING:
    import numpy as np

    from effivmt.method.guided import GuidedRequest

Generate = Callable[["GuidedRequest", Any], "np.ndarray"]
"""Makes the frames uint8 (T, H, W, 3) of one video, by the method's own section of params."""


def render_guided(
    work: Workspace, ingested: Artifact, prompt: str, *, method: str, params: Section, generate: Generate
) -> list[RenderedVideo]:
    """A prompt rendered for each seed; files: video.mp4. method: what stands for the code of `generate` in keys."""
    own = work.params.render
    embeddings = embed_texts(work, [prompt, own.negative_prompt])
    inputs = {
        "clip": ingested.digest("dense.safetensors"),
        "prompt": embeddings[prompt].digest("embedding.safetensors"),
        "negative": embeddings[own.negative_prompt].digest("embedding.safetensors"),
    }
    unread = {"seeds", "baseline"} | ADAPTER_FIELDS
    settings: dict[str, object] = {
        "peer": method,
        "params": params.model_dump(),
        "render": sampling_settings(own, unread),
        "ingest": work.params.ingest.model_dump(),
        "precision": work.precision,
        **work.kernels(work.params.backbone.attention),
    }
    if work.memory.tiled_decoding:  # as in the stage render
        settings["tiled"] = True
    pair = (embeddings[prompt], embeddings[own.negative_prompt])
    videos = []
    for seed in own.seeds:
        make = partial(_render, work, ingested=ingested, embeddings=pair, seed=seed, params=params, generate=generate)
        artifact = work.store.build(work.key("peer_render", inputs, settings | {"seed": seed}), make)
        videos.append(RenderedVideo(prompt, seed, artifact, None))
    return videos


def _render(
    work: Workspace,
    out: Path,
    _scratch: Path,
    *,
    ingested: Artifact,
    embeddings: tuple[Artifact, Artifact],
    seed: int,
    params: Section,
    generate: Generate,
) -> None:
    from effivmt.media.video import write_video
    from effivmt.method.guided import GuidedRequest

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
    write_video(out / "video.mp4", generate(request, params), work.params.ingest.fps)
