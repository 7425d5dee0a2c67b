"""MotionDirector (arXiv 2310.08465, ECCV 2024): appearance and motion LoRAs on all heads, tuned jointly.

In each step the spatial LoRA learns single frames with the temporal one off, and the temporal LoRA learns the whole
clip with the spatial one on but frozen, under a loss that weights the appearance shared by all frames less. Rendering
uses the temporal LoRA alone (spatial scale 0), so the prompt decides the appearance.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from pydantic import Field
from torch import nn

from effivmt.benchmark.baselines.features import checkpointed
from effivmt.config import Positive, Section
from effivmt.errors import EffiVMTError
from effivmt.method import losses
from effivmt.method.branch_lora import PROJECTIONS
from effivmt.method.checkpoint import load_checkpoint, save_checkpoint
from effivmt.method.device import deterministic_gradients
from effivmt.method.heads import BRANCHES
from effivmt.method.prediction import predict_velocity
from effivmt.method.seeding import generator

Lora = dict[str, torch.Tensor]
"""Weights of one LoRA in the stock layout: `transformer.blocks.0.attn1.to_q.lora_A.weight` and so on."""


class MotionDirectorParams(Section):
    """Params of MotionDirector; the defaults are its authors' for one video, except flow_shift, which is ours."""

    rank: Positive = 32
    steps: Positive = 300
    batch: Positive = 1
    """Number of single frames, and of noised copies of the whole clip, in one step."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    flow_shift: Annotated[float, Field(gt=0)] = 3.0
    """Noise levels are drawn as sigma = shift u / (1 + (shift - 1) u), u uniform."""
    beta: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the anchor frame that phi subtracts."""
    save_every: Positive = 100
    """Steps between checkpoints; a killed run resumes from the last one."""


def tune(
    transformer: WanTransformer3DModel,
    dense: torch.Tensor,
    single: torch.Tensor,
    caption: torch.Tensor,
    *,
    params: MotionDirectorParams,
    seed: int,
    clip: str,
    checkpoint: Path,
    progress: Callable[[int, int], None] | None = None,
    gradient_checkpointing: bool = False,
) -> dict[str, Lora]:
    """The "spatial" and the "temporal" LoRA of a clip, in the stock layout; the transformer is left unchanged.

    dense: latents (1, C, F, h, w) of the clip; single: latents (M, C, 1, h, w) of its frames, each encoded alone;
    caption: embedding (1, tokens, channels). `clip` enters the seed of every draw. A checkpoint file at `checkpoint` is
    resumed. progress(done, steps) is called after each step. gradient_checkpointing saves memory at the cost of time,
    with the same result. Raises EffiVMTError when a loss is not finite.
    """
    transformer.requires_grad_(False)
    caption = caption.to(transformer.device, transformer.dtype).expand(params.batch, -1, -1)
    loras = {
        name: draw_lora(transformer, params.rank, generator(seed, "motion_director", clip, name)) for name in BRANCHES
    }
    weights = {f"{name}.{key}": weight for name, lora in loras.items() for key, weight in lora.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=params.learning_rate, weight_decay=params.weight_decay)
    start, _ = load_checkpoint(checkpoint, weights, optimizer)
    with checkpointed(transformer, needed=gradient_checkpointing), deterministic_gradients(transformer.device):
        for step in range(start, params.steps):
            random = generator(seed, "motion_director", clip, step)
            frames = single[torch.randint(len(single), (params.batch,), generator=random)]
            video = dense.expand(params.batch, -1, -1, -1, -1)
            anchor = int(torch.randint(dense.shape[2], (), generator=random))
            optimizer.zero_grad(set_to_none=True)
            with added(transformer, loras["spatial"]):
                spatial = losses.denoising_loss(
                    *_predict(transformer, frames, caption, shift=params.flow_shift, random=random)
                )
                spatial.backward()
            with added(transformer, frozen(loras["spatial"]), loras["temporal"]):
                predicted, target = _predict(transformer, video, caption, shift=params.flow_shift, random=random)
                temporal = temporal_loss(predicted, target, params.beta, anchor)
                temporal.backward()
            for name, loss in (("spatial", spatial), ("temporal", temporal)):
                if not loss.isfinite():
                    raise EffiVMTError(
                        f"MotionDirector diverged: its {name} loss is {loss.item()} at step {step + 1} of "
                        f"{params.steps}; lower its learning_rate"
                    )
            optimizer.step()
            if (step + 1) % params.save_every == 0 and step + 1 < params.steps:
                save_checkpoint(checkpoint, step + 1, weights, optimizer, logs={})
            if progress is not None:
                progress(step + 1, params.steps)
    return {name: {key: weight.cpu().clone() for key, weight in frozen(lora).items()} for name, lora in loras.items()}


def temporal_loss(predicted: torch.Tensor, target: torch.Tensor, beta: float, anchor: int) -> torch.Tensor:
    """L_t = |v' - v|^2 + |phi(v') - phi(v)|^2, mean over velocities (B, C, F, h, w): a scalar (paper, section 4.2)."""
    debiased = losses.denoising_loss(debias(predicted, beta, anchor), debias(target, beta, anchor))
    return losses.denoising_loss(predicted, target) + debiased


def debias(x: torch.Tensor, beta: float, anchor: int) -> torch.Tensor:
    """phi(x) = sqrt(beta^2 + 1) x - beta x_anchor over the latent frames of (B, C, F, h, w) (paper, section 4.2).

    The part that all frames share is scaled by sqrt(beta^2 + 1) - beta < 1, their differences by sqrt(beta^2 + 1).
    """
    return math.sqrt(beta**2 + 1) * x - beta * x[:, :, anchor : anchor + 1]


def draw_lora(transformer: WanTransformer3DModel, rank: int, random: torch.Generator) -> Lora:
    """A trainable float32 LoRA on all heads of every self-attention: A Kaiming uniform, B zero, as in peft."""
    lora = {}
    for name, linear in _projections(transformer):
        # kaiming_uniform_(a=sqrt(5)), which peft calls, has the bound 1 / sqrt(fan_in).
        down = (torch.rand(rank, linear.in_features, generator=random) * 2 - 1) / math.sqrt(linear.in_features)
        lora[f"{name}.lora_A.weight"] = down.to(linear.weight.device).requires_grad_()
        lora[f"{name}.lora_B.weight"] = down.new_zeros(linear.out_features, rank).to(down.device).requires_grad_()
    return lora


def frozen(lora: Mapping[str, torch.Tensor]) -> Lora:
    """The same weights, sharing memory, detached from the gradient."""
    return {name: weight.detach() for name, weight in lora.items()}


@contextmanager
def added(transformer: WanTransformer3DModel, *loras: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Within the context, adds LoRAs at scale 1 to the outputs of their projections: x W^T + x A^T B^T."""
    hooks = [
        linear.register_forward_hook(_adding(lora[f"{name}.lora_A.weight"], lora[f"{name}.lora_B.weight"]))
        for name, linear in _projections(transformer)
        for lora in loras
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adding(down: torch.Tensor, up: torch.Tensor) -> Callable[..., torch.Tensor]:
    def hook(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output + (args[0].to(down.dtype) @ down.T @ up.T).to(output.dtype)

    return hook


def _projections(transformer: WanTransformer3DModel) -> Iterator[tuple[str, nn.Linear]]:
    """Name and module of every projection of the self-attentions."""
    for layer, block in enumerate(transformer.blocks):
        for projection in PROJECTIONS:
            linear = cast(nn.Linear, block.get_submodule(f"attn1.{projection}"))  # torch says Module
            yield f"transformer.blocks.{layer}.attn1.{projection}", linear


def _predict(
    transformer: WanTransformer3DModel,
    latents: torch.Tensor,
    caption: torch.Tensor,
    *,
    shift: float,
    random: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted and true velocity (B, C, F, h, w) of latents noised to random levels; caption (B, tokens, channels)."""
    noise = torch.randn(latents.shape, generator=random)
    sigmas = losses.draw_sigmas(len(latents), shift, random)
    noised = losses.add_noise(latents, noise, sigmas).to(transformer.device, transformer.dtype)
    predicted = predict_velocity(transformer, noised, (1000 * sigmas).to(transformer.device), caption)
    return predicted, losses.velocity(latents, noise).to(transformer.device)
