"""Guided sampling, shared by the training-free peers: the stock pipeline, with the latents changed before early steps.

Without a guided step the frames are those of `rendering.render` without an adapter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from effivmt.config import IngestParams, RenderParams
from effivmt.errors import EffiVMTError
from effivmt.method.backbone import Backbone
from effivmt.method.device import deterministic_gradients
from effivmt.method.rendering import Pipeline, run_pipeline


@dataclass(frozen=True, eq=False)  # tensors have no truth value to compare by
class GuidedRequest:
    """One video to render with the motion of a reference.

    reference: normalised latents (1, C, F, h, w) of the size to render; prompt and negative: text embeddings
    (tokens, channels); size: frames, height and width in pixels; progress(done, steps) is called after each step.
    """

    backbone: Backbone
    reference: torch.Tensor
    prompt: torch.Tensor
    negative: torch.Tensor
    render: RenderParams
    size: IngestParams
    seed: int
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True, eq=False)
class SamplingStep:
    """A guided step: the `index`-th of `count`, counted from 0.

    timestep (1,) in [0, 1000]; sigma: the noise level in (0, 1]; noise (1, C, F, h, w), from which sampling started.
    """

    index: int
    count: int
    timestep: torch.Tensor
    sigma: float
    noise: torch.Tensor

    def interpolate(self, first: float, last: float) -> float:
        """A value that goes linearly from `first` at the first guided step to `last` at the last one."""
        return first + (last - first) * self.index / max(1, self.count - 1)


Guide = Callable[[torch.Tensor, SamplingStep], torch.Tensor]
"""Takes the latents float32 (1, C, F, h, w) before a step and returns the latents that the step starts from."""


@torch.no_grad()
def generate(request: GuidedRequest, guide: Guide, guided_share: float) -> np.ndarray:
    """Frames uint8 (T, H, W, 3); `guide` is called before each of the first `guided_share` of the steps.

    A share of 0 guides no step, any other at least one. Noise, scheduler and classifier-free guidance are those of
    `rendering.render`, except that UniPC's corrector is off in guided steps: it computes a sample again from the one
    before, which would undo the guide's change. EffiVMTError where the reference is not of the size to render.
    """
    backbone, render, size = request.backbone, request.render, request.size
    pipeline = backbone.pipeline(render.flow_shift)
    scheduler = pipeline.scheduler
    noise = pipeline.prepare_latents(
        batch_size=1,
        num_channels_latents=backbone.transformer.config["in_channels"],
        height=size.height,
        width=size.width,
        num_frames=size.num_frames,
        dtype=torch.float32,
        device=backbone.device,
        generator=torch.Generator().manual_seed(request.seed),
    )
    if request.reference.shape != noise.shape:
        raise EffiVMTError(
            f"the reference latents are of shape {tuple(request.reference.shape)} but the video to render has "
            f"{tuple(noise.shape)}; ingest the reference at the size and number of frames that are rendered"
        )
    count = guided_steps(guided_share, render.steps)
    # Entry i - 1 turns the corrector of step i off; step 0 has none.
    scheduler.disable_corrector = list(range(count - 1))
    scheduler.set_timesteps(render.steps, device=backbone.device)

    def before_step(index: int, latents: torch.Tensor) -> torch.Tensor:
        if index >= count:
            return latents
        timestep, sigma = scheduler.timesteps[index][None], float(scheduler.sigmas[index])
        return guide(latents, SamplingStep(index, count, timestep, sigma, noise))

    def after_step(
        _pipeline: Pipeline, index: int, _timestep: torch.Tensor, tensors: dict[str, Any]
    ) -> dict[str, torch.Tensor]:
        if request.progress is not None:
            request.progress(index + 1, render.steps)
        return {"latents": before_step(index + 1, tensors["latents"])}

    start = before_step(0, noise)
    return run_pipeline(
        pipeline, request.prompt, request.negative, render, size=size, after_step=after_step, latents=start
    )


def guided_steps(share: float, steps: int) -> int:
    """Number of guided steps among `steps`: the share rounded to a whole number, at least 1 unless the share is 0."""
    return max(1, round(share * steps)) if share > 0 else 0


def optimise(
    latents: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor], steps: int, learning_rate: float
) -> torch.Tensor:
    """The latents after `steps` steps of a new Adam optimizer on `loss`; no other tensor receives a gradient.

    Raises EffiVMTError when the loss is not finite.
    """
    with torch.enable_grad(), deterministic_gradients(latents.device):
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
