"""Guided sampling: the stock pipeline's loop with a hook before each of its early steps that may move the latents.

What the training-free peers share. Without a guide the frames are those of `rendering.render`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from effivmt.config import IngestParams, RenderParams
from effivmt.errors import EffiVMTError
from effivmt.method.backbone import Backbone
from effivmt.method.rendering import run_pipeline


@dataclass(frozen=True)
class Moment:
    """Where sampling stands before a guided step, the `index`-th of `count`.

    timestep (1,) in [0, 1000]; sigma, the noise level in (0, 1]; noise (1, C, F, h, w), from which sampling began.
    """

    index: int
    count: int
    timestep: torch.Tensor
    sigma: float
    noise: torch.Tensor

    def between(self, first: float, last: float) -> float:
        """A value that goes linearly from `first` at the first guided step to `last` at the last one."""
        return first + (last - first) * self.index / max(1, self.count - 1)


Guide = Callable[[torch.Tensor, Moment], torch.Tensor]
"""Takes latents float32 (1, C, F, h, w) and the moment, returns the latents from which the step is made."""


@torch.no_grad()
def generate(
    backbone: Backbone,
    reference: torch.Tensor,
    prompt: torch.Tensor,
    negative: torch.Tensor,
    render: RenderParams,
    size: IngestParams,
    seed: int,
    guide: Guide,
    guided_share: float,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Frames uint8 (T, H, W, 3), guided in the first `guided_share` of the steps (0: in none, else in at least one).

    Noise, scheduler and classifier-free guidance are `rendering.render`'s. One thing differs: UniPC's corrector makes
    each sample anew from the one before it, which would drop what the guide did to it, so guided samples go
    uncorrected. Raises EffiVMTError where the reference latents (1, C, F, h, w) are not of the size that is rendered.
    """
    pipeline = backbone.pipeline(render.flow_shift)
    scheduler, channels = pipeline.scheduler, backbone.transformer.config.in_channels
    noise = pipeline.prepare_latents(
        1, channels, size.height, size.width, size.num_frames, torch.float32, backbone.device,
        torch.Generator().manual_seed(seed),
    )  # fmt: skip
    if reference.shape != noise.shape:
        raise EffiVMTError(
            f"the reference latents are of shape {tuple(reference.shape)} but the video to render has "
            f"{tuple(noise.shape)}; ingest the reference at the size and number of frames that are rendered"
        )
    count = guided_steps(guided_share, render.steps)
    scheduler.disable_corrector = list(range(count - 1))  # entry i - 1 stands for step i; step 0 has no corrector
    scheduler.set_timesteps(render.steps, device=backbone.device)

    def before_step(index: int, latents: torch.Tensor) -> torch.Tensor:
        if index >= count:
            return latents
        timestep, sigma = scheduler.timesteps[index][None], float(scheduler.sigmas[index])
        return guide(latents, Moment(index, count, timestep, sigma, noise))

    def after_step(_pipeline, index: int, _timestep, tensors: dict) -> dict:
        if progress is not None:
            progress(index + 1, render.steps)
        return {"latents": before_step(index + 1, tensors["latents"])}

    return run_pipeline(
        pipeline, prompt, negative, render, size=size, after_step=after_step, latents=before_step(0, noise)
    )


def guided_steps(share: float, steps: int) -> int:
    """How many of `steps` are guided: the nearest whole number to that share of them, but at least one of a share."""
    return max(1, round(share * steps)) if share > 0 else 0


def optimise(
    latents: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor], steps: int, learning_rate: float
) -> torch.Tensor:
    """The latents after some steps of Adam, begun afresh, down `loss`; no other tensor receives a gradient.

    Raises EffiVMTError when the loss is no longer finite.
    """
    with torch.enable_grad():
        latents = latents.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([latents], lr=learning_rate)
        for step in range(steps):
            value = loss(latents)
            if not value.isfinite():
                raise EffiVMTError(
                    f"guidance diverged: its loss is {value.item()} at step {step + 1} of {steps}; lower the method's "
                    "learning rate"
                )
            (latents.grad,) = torch.autograd.grad(value, latents)
            optimizer.step()
    return latents.detach()
