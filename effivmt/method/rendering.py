"""Fused inference: a prompt rendered by the stock pipeline with the adapters' branches merged into the weights."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from PIL import Image

from effivmt.config import IngestParams, RenderParams
from effivmt.errors import EffiVMTError
from effivmt.method.adapter import Adapter, check_fits, fused
from effivmt.method.adapter_merge import Part
from effivmt.method.backbone import Backbone
from effivmt.method.compiling import compiled_blocks
from effivmt.method.regions import ForwardPass, joined_by_region

if TYPE_CHECKING:
    from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline

Pipeline: TypeAlias = "WanPipeline | WanImageToVideoPipeline"
Tensors = dict[str, torch.Tensor]
"""Tensors of a sampling step by name, such as `latents`."""


def render(
    backbone: Backbone,
    adapter: Adapter | None,
    prompt: torch.Tensor,
    negative: torch.Tensor,
    *,
    params: RenderParams,
    size: IngestParams,
    seed: int,
    image: np.ndarray | None = None,
    regional: Sequence[Part] = (),
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) for prompt and negative prompt embeddings (tokens, channels) and a seed.

    `adapter` None renders the backbone alone. Adapters in `regional` have a region and act in it alone, each at its own
    strengths and in a forward pass of its own, with `adapter` outside (`effivmt.method.regions`). `image` uint8
    (H, W, 3) is the first frame, where one is given. Sampling is that of the stock `WanPipeline` or
    `WanImageToVideoPipeline`: UniPC, flow shift, classifier-free guidance, noise from
    `torch.Generator().manual_seed(seed)`. `progress` is called with (steps done, steps in all). Raises AdapterError
    where an adapter was made for another backbone, EffiVMTError as `run_pipeline` does.
    """
    transformers = [backbone.frozen_of(expert) for expert in backbone.experts]
    second = transformers[1] if transformers[1:] else None
    for one in (adapter, *(part.adapter for part in regional)):
        if one is not None:
            check_fits(one, transformers[0], backbone.found.facts, second=second)
    own = _passes(adapter, params.appearance_strength, params.motion_strength)
    others = [(_passes(part.adapter, part.appearance, part.motion), _region(part.adapter)) for part in regional]
    pipeline = (backbone.pipeline if image is None else backbone.image_pipeline)(params.flow_shift)
    generator = torch.Generator().manual_seed(seed)

    def fuse(*, motion: bool) -> None:
        loras.close()
        for transformer, one in zip(transformers, own, strict=False):  # there may be no second one
            loras.enter_context(fused(transformer, one.branches(moving=motion)))

    def after_step(running: Pipeline, index: int, timestep: torch.Tensor, _tensors: Tensors) -> Tensors:
        following = running.scheduler.timesteps[index + 1 :]
        if not regional and len(following) > 0 and following[0] < 1000 * params.motion_boundary <= timestep:
            fuse(motion=False)
        if progress is not None:
            progress(index + 1, params.steps)
        return {}

    with ExitStack() as loras, ExitStack() as prepared:
        if not regional:
            fuse(motion=True)
        for number, transformer in enumerate(transformers):
            prepared.enter_context(compiled_blocks(transformer, needed=backbone.params.compile))
            if regional:
                there = [(passes[number], region) for passes, region in others]
                boundary = params.motion_boundary
                prepared.enter_context(joined_by_region(transformer, own[number], there, motion_boundary=boundary))
        return run_pipeline(
            pipeline, prompt, negative, params, size=size, after_step=after_step, generator=generator, image=image
        )


def _passes(adapter: Adapter | None, appearance: float, motion: float) -> tuple[ForwardPass, ForwardPass]:
    """What an adapter adds to the first transformer of a backbone and, where there is one, to the second."""
    low_noise = None if adapter is None else adapter.low_noise
    return ForwardPass(adapter, appearance, motion), ForwardPass(low_noise, appearance, motion)


def _region(adapter: Adapter) -> torch.Tensor:
    assert adapter.region is not None, "the adapter has no region"
    return adapter.region


def run_pipeline(
    pipeline: Pipeline,
    prompt: torch.Tensor,
    negative: torch.Tensor,
    params: RenderParams,
    *,
    size: IngestParams,
    after_step: Callable[[Pipeline, int, torch.Tensor, Tensors], Tensors],
    generator: torch.Generator | None = None,
    latents: torch.Tensor | None = None,
    image: np.ndarray | None = None,
) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) of one run of a stock pipeline.

    It starts from noise that `generator` draws, or from the noise `latents` (1, C, F, h, w); one that takes an image
    takes `image` uint8 (H, W, 3), of the size to render. `after_step` is diffusers'
    `callback_on_step_end`: it receives the pipeline, the step's index, its timestep and its tensors, and returns those
    that it replaces. Raises EffiVMTError where the latents of a step or the frames are not finite, or all are black.
    """

    options: dict[str, Any] = {} if image is None else {"image": Image.fromarray(image)}

    def checked(running: Pipeline, index: int, timestep: torch.Tensor, tensors: Tensors) -> Tensors:
        if not tensors["latents"].isfinite().all():
            raise _diverged(f"the latents are not finite after step {index + 1} of {params.steps}")
        return after_step(running, index, timestep, tensors)

    video = pipeline(
        prompt_embeds=prompt[None].to(pipeline.transformer.device),
        negative_prompt_embeds=negative[None].to(pipeline.transformer.device),
        height=size.height,
        width=size.width,
        num_frames=size.num_frames,
        num_inference_steps=params.steps,
        guidance_scale=params.guidance_scale,
        guidance_scale_2=params.guidance_scale_2,
        callback_on_step_end=checked,
        output_type="np",
        generator=generator,
        latents=latents,
        **options,
    ).frames[0]
    if not np.isfinite(video).all():
        raise _diverged("the decoded frames are not finite")
    if not video.any():
        raise _diverged("every pixel is black")
    return (video * 255).round().clip(0, 255).astype(np.uint8)


def _diverged(fault: str) -> EffiVMTError:
    return EffiVMTError(
        f"rendering diverged: {fault}; lower render.motion_strength, render.appearance_strength or "
        "render.guidance_scale, or tune at a lower rate"
    )
