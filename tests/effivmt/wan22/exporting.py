"""What stock diffusers makes of an adapter folder, and what its LoRAs give in our own pipeline."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline

from effivmt.method.adapter import Adapter, fused
from effivmt.method.backbone import Backbone


def video(pipeline: WanPipeline, prompts: list[torch.Tensor], *, side: int = 32, **options: float) -> np.ndarray:
    """Frames float32 (T, H, W, 3) in [0, 1] of four steps, of which two are above the boundary."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt_embeds=prompts[0][None],
        negative_prompt_embeds=prompts[1][None],
        height=side,
        width=side,
        num_frames=9,
        num_inference_steps=4,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
        **options,
    ).frames[0]


def stock(folder: Path) -> WanPipeline:
    scheduler = UniPCMultistepScheduler.from_pretrained(folder, subfolder="scheduler", flow_shift=5.0)
    return WanPipeline.from_pretrained(folder, scheduler=scheduler)


def by_card(adapter: Path, backbone: Path) -> WanPipeline:
    """A stock pipeline with the adapter, loaded by the very code of the adapter's model card."""
    code = (adapter / "README.md").read_text().split("```")[1].removeprefix("python\n")
    namespace = {"WanPipeline": WanPipeline, "FOLDER": str(adapter), "BACKBONE": str(backbone)}
    exec(code, namespace)  # ours, from the folder that the test has just made
    pipeline = namespace["pipe"]
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config, flow_shift=5.0)
    return pipeline


@contextmanager
def fused_all(backbone: Backbone, adapter: Adapter) -> Iterator[None]:
    """All of an adapter merged into the backbone's transformers at full strength."""
    with ExitStack() as merged:
        for expert, pair in zip(backbone.experts, (adapter, adapter.low_noise), strict=False):
            if pair is not None:
                branches = {"spatial": (pair.spatial, 1.0), "temporal": (pair.temporal, 1.0)}
                merged.enter_context(fused(backbone.transformer_of(expert), branches))
        yield
