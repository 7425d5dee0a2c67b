"""What stock diffusers makes of an image: the pipeline of a backbone folder, and its video."""

from pathlib import Path

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline
from PIL import Image

CLEAN = {"expand_timesteps": True, "image_encoder": None, "image_processor": None}
"""Options for a folder that takes a clean first latent frame and was saved as a text-to-video pipeline."""


def stock(folder: Path, **options: object) -> WanImageToVideoPipeline:
    scheduler = UniPCMultistepScheduler.from_pretrained(folder, subfolder="scheduler", flow_shift=5.0)
    return WanImageToVideoPipeline.from_pretrained(folder, scheduler=scheduler, **options)


def video(
    pipeline: WanImageToVideoPipeline, picture: np.ndarray, prompts: list[torch.Tensor], guidance_scale: float = 4.0
) -> np.ndarray:
    """Frames float32 (9, H, W, 3) in [0, 1] of four steps, that begin with a picture uint8 (H, W, 3)."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        image=Image.fromarray(picture),
        prompt_embeds=prompts[0][None],
        negative_prompt_embeds=prompts[1][None],
        height=picture.shape[0],
        width=picture.shape[1],
        num_frames=9,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
        guidance_scale=guidance_scale,
    ).frames[0]
