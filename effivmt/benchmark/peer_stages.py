"""The benchmark's own steps, (inputs, params) -> artifact in the store, beside those of `effivmt.pipeline.stages`: of the peers,
and of the reference's way through the autoencoder."""

from collections.abc import Callable, Mapping
from pathlib import Path

from effivmt.benchmark.peers import peer_module
from effivmt.catalog import Clip
from effivmt.config import Section
from effivmt.pipeline.stages import Rendered, texts
from effivmt.pipeline.workspace import Workspace
from effivmt.store.artifact import Artifact, Key
from effivmt.versions import BENCHMARK_VERSIONS


def tune(work: Workspace, peer: str, params: Section, clip: Clip, ingested: Artifact) -> Artifact:
    """A tuned peer's two LoRAs of all heads; files: adapter/ (the adapter folder)."""
    caption = texts(work, [clip.caption])[clip.caption]
    inputs = {
        "clip": ingested.digest("dense.safetensors"),
        "single": ingested.digest("single.safetensors"),
        "caption": caption.digest("embedding.safetensors"),
    }
    settings = {"peer": peer, **params.model_dump(exclude={"save_every"}), "seed": work.params.seed}

    def make(out: Path, scratch: Path) -> None:
        import numpy as np
        from safetensors.torch import load_file

        from effivmt.method.adapter import save_adapter
        from effivmt.method.heads import HeadMap

        work.backbone.keep("transformer")
        dense, single = (load_file(ingested.file(f"{name}.safetensors"))[name] for name in ("dense", "single"))
        loras = peer_module(peer).tune(
            work.backbone.transformer,
            dense,
            single,
            load_file(caption.file("embedding.safetensors"))["embedding"][None],
            params=params,
            seed=work.params.seed,
            clip=inputs["clip"],
            checkpoint=scratch / "peer.safetensors",
            progress=work.units("peer_tune"),
        )
        config = work.backbone.transformer.config
        scores = np.zeros((config.num_layers, config.num_attention_heads))
        heads = HeadMap(scores, scores, scores > 0, decoupled=False)
        facts = {
            "backbone": {"id": work.backbone.id, "digest": work.backbone.digest},
            "clip": {"caption": clip.caption, "digest": inputs["clip"]},
            "params": {"peer": peer, **params.model_dump(mode="json")},
        }
        save_adapter(out / "adapter", loras["spatial"], loras["temporal"], heads, facts=facts)

    return _build(work, "peer_tune", inputs, settings, make)


def render(work: Workspace, peer: str, params: Section, ingested: Artifact, prompt: str) -> list[Rendered]:
    """A prompt by a peer that tunes nothing and guides the sampling, for each seed; files: video.mp4."""
    own = work.params.render
    embedded = texts(work, [prompt, own.negative_prompt])
    inputs = {
        "clip": ingested.digest("dense.safetensors"),
        "prompt": embedded[prompt].digest("embedding.safetensors"),
        "negative": embedded[own.negative_prompt].digest("embedding.safetensors"),
    }
    unused = {"seeds", "baseline", "appearance_strength", "motion_strength"}
    settings = {"peer": peer, "params": params.model_dump(), "render": own.model_dump(exclude=unused)}
    settings["ingest"] = work.params.ingest.model_dump()

    def one(seed: int) -> Artifact:
        def make(out: Path, _scratch: Path) -> None:
            from safetensors.torch import load_file

            from effivmt.benchmark.baselines.guided import GuidedRequest
            from effivmt.media.video import write_video

            work.backbone.keep("transformer", "vae")
            positive, negative = (
                load_file(embedded[text].file("embedding.safetensors"))["embedding"]
                for text in (prompt, own.negative_prompt)
            )
            request = GuidedRequest(
                backbone=work.backbone,
                reference=load_file(ingested.file("dense.safetensors"))["dense"],
                prompt=positive,
                negative=negative,
                render=own,
                size=work.params.ingest,
                seed=seed,
                progress=work.units("peer_render"),
            )
            frames = peer_module(peer).generate(request, params)
            write_video(out / "video.mp4", frames, work.params.ingest.fps)

        return _build(work, "peer_render", inputs, {**settings, "seed": seed}, make)

    return [Rendered(prompt, seed, one(seed), None) for seed in own.seeds]


def reconstruct(work: Workspace, ingested: Artifact) -> Artifact:
    """The reference, encoded and decoded: what a perfect copy would be; files: video.mp4."""

    def make(out: Path, _scratch: Path) -> None:
        from safetensors.torch import load_file

        from effivmt.media.video import write_video

        work.backbone.keep("vae")
        frames = work.backbone.decode_video(load_file(ingested.file("dense.safetensors"))["dense"][0])
        write_video(out / "video.mp4", frames, work.params.ingest.fps)

    inputs = {"clip": ingested.digest("dense.safetensors")}
    return _build(work, "reconstruct", inputs, {"fps": work.params.ingest.fps}, make)


def _build(
    work: Workspace,
    stage: str,
    inputs: Mapping[str, str],
    settings: Mapping[str, object],
    make: Callable[[Path, Path], None],
) -> Artifact:
    settings = {**settings, "precision": work.params.backbone.dtype}
    return work.store.build(Key(stage, BENCHMARK_VERSIONS[stage], inputs, settings, work.folder.digest), make)
