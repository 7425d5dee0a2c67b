"""Stage ingest: decodes a clip and encodes it with the backbone's autoencoder."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from effivmt.catalog import Clip
from effivmt.errors import BackboneError, VideoError
from effivmt.pipeline.excerpt import FILE as EXCERPT
from effivmt.pipeline.excerpt import take
from effivmt.pipeline.reconstruction import FIELD, psnr
from effivmt.pipeline.reconstruction import FILE as RECONSTRUCTION
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key
from effivmt.store.digests import sha256_tree
from effivmt.store.verification import known_sha256


def ingest_key(work: Workspace, clip: Clip) -> Key:
    """The store key; VideoError when the video or the folder of images is missing."""
    sampling = work.params.sampling
    if not clip.video.is_file():
        raise VideoError(f"video {clip.video} does not exist or is no file; give the path of a video file")
    inputs = {"clip": known_sha256(clip.video)}
    if clip.appearance_images is not None:
        if not clip.appearance_images.is_dir():
            raise VideoError(f"appearance images {clip.appearance_images} is no folder; give a folder of images")
        inputs["appearance_images"] = sha256_tree(clip.appearance_images)
    settings = {"ingest": work.params.ingest.model_dump(), "start": clip.start, "end": clip.end, **work.tf32}
    settings["sampling"] = sampling.model_dump() if sampling.mode == "pixel" else None
    if work.memory.tiled_decoding:  # reconstruction.json is of decoded frames, as in the stage render
        settings["tiled"] = True
    return work.key("ingest", inputs, settings)


def check_video(clip: Clip) -> None:
    """VideoError where a clip's video has no frame that can be decoded, or ends before the clip begins."""
    from effivmt.media.video import probe

    lasting = probe(clip.video).duration
    if clip.start >= lasting:
        raise VideoError(f"start is {clip.start:g} s, but {str(clip.video)!r} has {lasting:.2f} s: correct the trim")


def ingest(work: Workspace, clip: Clip) -> Artifact:
    """Decodes, trims and resamples a clip and encodes it: whole, its frames one by one, and its sampled frames.

    Files: frames.safetensors (uint8 (T, H, W, 3)), probe.json, excerpt.json (what was taken of the video),
    reconstruction.json (how well the autoencoder gives the frames back, PSNR in dB) and the latents: dense.safetensors
    (1, C, F, h, w), single.safetensors (M, C, 1, h, w) and, for pixel sampling, sampled.safetensors (phases, C, F', h,
    w). A video that is shorter than the params ask for gives the longest clip that it has. VideoError where it has
    none.
    """
    key = ingest_key(work, clip)
    return work.store.build(key, partial(_ingest, work, clip=clip, key=key), force=work.forces(key))


def _ingest(work: Workspace, out: Path, _scratch: Path, *, clip: Clip, key: Key) -> None:
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from effivmt.media.video import probe, read_clip, read_images
    from effivmt.method.rope import sampled_indices

    params, sampling, progress = work.params.ingest, work.params.sampling, work.progress("ingest")
    size = {"height": params.height, "width": params.width}
    frames = read_clip(clip.video, fps=params.fps, num_frames=params.num_frames, start=clip.start, end=clip.end, **size)
    images = frames if clip.appearance_images is None else read_images(clip.appearance_images, **size)
    sampled = [
        frames[sampled_indices(len(frames), min(sampling.frames, len(frames)), phase / sampling.phases)]
        for phase in range(sampling.phases if sampling.mode == "pixel" else 0)
    ]
    total, done = 2 + len(images) + len(sampled), 0

    def encode(video: np.ndarray) -> torch.Tensor:
        nonlocal done
        latents = work.backbone.encode_video(video)
        if not latents.isfinite().all():
            raise BackboneError(
                f"backbone {work.backbone.id}: its autoencoder gives latents of {clip.video.name} that are not finite; "
                "its weights are damaged: get it again"
            )
        done += 1
        progress(done, total)
        return latents

    latents = {"dense": encode(frames)[None], "single": torch.stack([encode(image[None]) for image in images])}
    if sampled:
        latents["sampled"] = torch.stack([encode(video) for video in sampled])
    for name, tensor in latents.items():
        save_file({name: tensor.contiguous()}, out / f"{name}.safetensors")
    measured = {FIELD: psnr(frames, work.backbone.decode_video(latents["dense"][0]))}
    progress(total, total)
    save_file({"frames": torch.from_numpy(np.ascontiguousarray(frames))}, out / "frames.safetensors")
    info = probe(clip.video)
    facts = {name: value for name, value in asdict(info).items() if name != "path"}
    (out / "probe.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    excerpt = take(info, len(frames), params, start=clip.start)
    (out / EXCERPT).write_text(json.dumps(asdict(excerpt), indent=1), encoding="utf-8")
    (out / RECONSTRUCTION).write_text(json.dumps(measured), encoding="utf-8")
    if ingest_key(work, clip) != key:
        raise VideoError(f"video {clip.video} or its images have changed while they were read; run again")
