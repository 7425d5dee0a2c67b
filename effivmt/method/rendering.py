"""Fused inference: a prompt rendered by the stock pipeline with the adapter's branches merged into the weights."""

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from diffusers import WanPipeline

from effivmt.config import IngestParams, RenderParams
from effivmt.method.adapter import Adapter, check_fits, fused
from effivmt.method.backbone import Backbone


def render(
    backbone: Backbone,
    adapter: Adapter | None,
    prompt: torch.Tensor,
    negative: torch.Tensor,
    params: RenderParams,
    size: IngestParams,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) for prompt and negative prompt embeddings (tokens, channels) and a seed.

    `adapter` None renders the backbone alone. Sampling is the stock `WanPipeline`'s: UniPC, flow shift, classifier-free
    guidance, noise from `torch.Generator().manual_seed(seed)`. AdapterError where the adapter is another backbone's.
    """
    if adapter is not None:
        check_fits(adapter, backbone.transformer, backbone.digest)
        branches = {
            "spatial": (adapter.spatial, params.appearance_strength),
            "temporal": (adapter.temporal, params.motion_strength),
        }
    pipeline = backbone.pipeline(params.flow_shift)
    generator = torch.Generator().manual_seed(seed)

    def step(_pipeline, index: int, _timestep, _tensors) -> dict:
        if progress is not None:
            progress(index + 1, params.steps)
        return {}

    with fused(backbone.transformer, branches) if adapter is not None else nullcontext():
        return run_pipeline(pipeline, prompt, negative, params, size, step, generator=generator)


def run_pipeline(
    pipeline: WanPipeline,
    prompt: torch.Tensor,
    negative: torch.Tensor,
    params: RenderParams,
    size: IngestParams,
    after_step: Callable[[WanPipeline, int, torch.Tensor, dict], dict],
    **start: torch.Generator | torch.Tensor,
) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) of one run of a stock pipeline; it starts from `generator` or from noise `latents`."""
    video = pipeline(
        prompt_embeds=prompt[None].to(pipeline.transformer.device),
        negative_prompt_embeds=negative[None].to(pipeline.transformer.device),
        height=size.height,
        width=size.width,
        num_frames=size.num_frames,
        num_inference_steps=params.steps,
        guidance_scale=params.guidance_scale,
        callback_on_step_end=after_step,
        output_type="np",
        **start,
    ).frames[0]
    return (video * 255).round().clip(0, 255).astype(np.uint8)
