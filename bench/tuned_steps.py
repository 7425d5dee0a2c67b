"""Training steps to compare: ours, as the tuning stages run them, and a plain LoRA step by diffusers and peft."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from peft import LoraConfig

from effivmt.config import Params
from effivmt.method.losses import add_noise, denoising_loss, velocity
from effivmt.method.tuning import Progress, tune_spatial, tune_temporal
from effivmt.planning.runs import half_temporal

STEPS = 2
"""Steps of a turn that are timed, after one that is not: the optimizer's state is made in the first."""


class _EnoughError(Exception):
    """Ends a tuning after its timed steps."""


def spatial_step(transformer: WanTransformer3DModel, params: Params, latents: torch.Tensor) -> Callable[[], float]:
    """A case of `timing.interleaved`: seconds of a step of stage 2 on the frames of latents (1, C, F, h, w)."""
    frames = latents[0].transpose(0, 1)[:, :, None].contiguous()
    tune = partial(tune_spatial, transformer, half_temporal(transformer), frames, _caption(transformer, params))
    return partial(_seconds, partial(tune, params=params.spatial, seed=0, clip=""), transformer.device)


def temporal_step(transformer: WanTransformer3DModel, params: Params, latents: torch.Tensor) -> Callable[[], float]:
    """The same of a step of stage 3 on latents (1, C, F, h, w) of a clip."""
    tune = partial(
        tune_temporal,
        transformer,
        half_temporal(transformer),
        latents,
        _caption(transformer, params),
        params=params.temporal,
        sampling=params.sampling,
        num_frames=params.ingest.num_frames,
        seed=0,
        clip="",
    )
    return partial(_seconds, tune, transformer.device)


def plain_step(
    transformer: WanTransformer3DModel, params: Params, latents: torch.Tensor, *, frames: int
) -> Callable[[], float]:
    """The same of a step as scripts of diffusers and peft take it: a LoRA on all heads, AdamW, the mean squared error.

    It has the rank, the batch and the checkpointing of stage 3 and sees the first `frames` latent frames. The
    transformer keeps the LoRA.
    """
    settings, device = params.temporal, transformer.device
    transformer.add_adapter(
        LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=r".*attn1\.(to_q|to_k|to_v|to_out\.0)")
    )
    weights = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    for weight in weights:
        weight.data = weight.data.float()
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    if settings.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    clean = latents[:, :, :frames].expand(settings.batch, -1, -1, -1, -1).to(device)
    caption = _caption(transformer, params).to(device, transformer.dtype).expand(settings.batch, -1, -1)

    def step() -> float:
        seconds = 0.0
        for number in range(STEPS + 1):
            start = time.perf_counter()
            noise, sigmas = torch.randn_like(clean), torch.full((settings.batch,), 0.5, device=device)
            noised = add_noise(clean, noise, sigmas).to(transformer.dtype)
            loss = denoising_loss(
                transformer(noised, 1000 * sigmas, caption, return_dict=False)[0], velocity(clean, noise)
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss.item()
            _wait(device)
            seconds += (time.perf_counter() - start) / STEPS if number else 0.0
        return seconds

    return step


def _caption(transformer: WanTransformer3DModel, params: Params) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randn(1, params.backbone.max_sequence_length, transformer.config["text_dim"], generator=random) * 0.1


def _seconds(tune: Callable[..., object], device: torch.device) -> float:
    """Mean seconds of the timed steps of a tuning."""
    marks: list[float] = []

    def progress(_done: int, _steps: int) -> None:
        _wait(device)
        marks.append(time.perf_counter())
        if len(marks) > STEPS:
            raise _EnoughError

    report: Progress = progress
    with TemporaryDirectory() as folder, suppress(_EnoughError):
        tune(checkpoint=Path(folder) / "none", progress=report)
    return (marks[-1] - marks[0]) / STEPS


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
