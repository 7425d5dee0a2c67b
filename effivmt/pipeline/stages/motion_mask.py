"""Stage mask: finds the part of a clip's motion that is wanted, and takes all other motion out of the clip."""

from functools import partial
from pathlib import Path

from effivmt.catalog import Box, Clip
from effivmt.errors import ParamsError
from effivmt.method.adapter_manifest import REGION
from effivmt.pipeline.excerpt import Excerpt, load_excerpt
from effivmt.pipeline.reconstruction import FILE as RECONSTRUCTION
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key
from effivmt.store.files import copy_verified


def mask_key(work: Workspace, clip: Clip, ingested: Artifact) -> Key:
    """The store key; ParamsError where the clip's region lies outside of what was taken of its video."""
    sampling = work.params.sampling
    region = None if clip.region is None else on_clip(clip.region, load_excerpt(ingested))
    settings: dict[str, object] = {"motion_of": clip.motion_of, "region": region, **work.tf32}
    settings["sampling"] = sampling.model_dump() if sampling.mode == "pixel" else None
    return work.key("mask", {"clip": ingested.digest("frames.safetensors")}, settings)


def mask(work: Workspace, clip: Clip, ingested: Artifact) -> Artifact:
    """The clip with the wanted motion alone; only for a clip that asks for a part of its motion.

    Files, of the names and shapes that `ingest` has: frames.safetensors, reconstruction.json (a copy) and the latents
    that stage 3 tunes on, dense.safetensors or sampled.safetensors. weights.safetensors (1 or phases, 1, F, h, w): how
    much each position of these counts in the losses, 0 to 1. mask.mp4 shows the wanted part in the clip. Of an object
    or a region, region.safetensors (1, 1, F, h, w): where in the latents of the whole clip its adapter acts beside
    others, 0 to 1. VideoError where the clip has no such motion; ParamsError as for `mask_key`.
    """
    key = mask_key(work, clip, ingested)
    return work.store.build(key, partial(_mask, work, clip=clip, ingested=ingested), force=work.forces(key))


def on_clip(region: Box, excerpt: Excerpt) -> Box:
    """A region of the shown video, in shares of its sides or in pixels, as shares of the clip's sides, cut to the clip.

    ParamsError where it lies outside of the video, or of the middle of it that the clip is.
    """
    sides, crop = (excerpt.width, excerpt.height), (excerpt.crop_width, excerpt.crop_height)
    given = ",".join(f"{number:g}" for number in region)
    scale = sides if max(region) <= 1 else (1, 1)
    low = [at * unit for at, unit in zip(region[:2], scale, strict=True)]
    high = [at + side * unit for at, side, unit in zip(low, region[2:], scale, strict=True)]
    if any(end > side + 0.5 for end, side in zip(high, sides, strict=True)):
        raise ParamsError(
            f"region {given} reaches out of the video, which has {sides[0]}x{sides[1]} pixels; give x,y,width,height "
            "within it, in pixels or in shares of 1"
        )
    edges = [
        [min(max((at - (side - part) / 2) / part, 0.0), 1.0) for at, side, part in zip(ends, sides, crop, strict=True)]
        for ends in (low, high)
    ]
    (left, top), (right, bottom) = edges
    if right - left <= 0 or bottom - top <= 0:
        raise ParamsError(
            f"region {given} lies outside of the clip, which is the middle {crop[0]}x{crop[1]} of the video's "
            f"{sides[0]}x{sides[1]} pixels; choose one inside, or change ingest.width and ingest.height"
        )
    x, y, width, height = (round(part, 4) for part in (left, top, right - left, bottom - top))
    return x, y, width, height


def _mask(work: Workspace, out: Path, _scratch: Path, *, clip: Clip, ingested: Artifact) -> None:
    import torch
    from safetensors.torch import save_file

    from effivmt.media.video import write_video
    from effivmt.method.masks import latent_region, latent_weights, shown_mask, wanted_part
    from effivmt.method.rope import sampled_indices

    sampling, progress = work.params.sampling, work.progress("mask")
    frames = load_tensor(ingested, "frames").numpy()
    region = None if clip.region is None else on_clip(clip.region, load_excerpt(ingested))
    part = wanted_part(frames, clip.motion_of, region)
    whole = torch.arange(len(frames))
    kept = [
        sampled_indices(len(frames), min(sampling.frames, len(frames)), phase / sampling.phases)
        for phase in range(sampling.phases if sampling.mode == "pixel" else 0)
    ] or [whole]
    name = "sampled" if sampling.mode == "pixel" else "dense"
    latents, weights = [], []
    for at in kept:
        latents.append(work.backbone.encode_video(part.frames[at]))
        _, *size = latents[-1].shape
        weights.append(torch.from_numpy(latent_weights(part.hidden[at], (size[0], size[1], size[2]))))
        progress(len(latents), len(kept))
    save_file({name: torch.stack(latents).contiguous()}, out / f"{name}.safetensors")
    save_file({"weights": torch.stack(weights)[:, None].contiguous()}, out / "weights.safetensors")
    if clip.motion_of != "camera":
        _, _, height, width = latents[0].shape
        where = latent_region(part.wanted, ((len(frames) - 1) // 4 + 1, height, width))
        save_file({"region": torch.from_numpy(where)[None, None].contiguous()}, out / REGION)
    save_file({"frames": torch.from_numpy(part.frames.copy())}, out / "frames.safetensors")
    copy_verified(ingested, RECONSTRUCTION, out / RECONSTRUCTION)
    write_video(out / "mask.mp4", shown_mask(frames, part.wanted), work.params.ingest.fps)
