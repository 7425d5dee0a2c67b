"""Stages 2 and 3: the appearance LoRA on single frames, then the motion LoRA on sparsely sampled frames.

One loop serves both: it draws a batch, predicts the velocity, and steps AdamW on the LoRA of one branch. Everything
random is counted from (seed, clip, stage, step), and the state is saved every few steps, so a killed run ends with the
same bytes as one never killed. A tuning that diverges goes on from its last good checkpoint at half the rate.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from effivmt.config import LoraParams, SamplingParams, SpatialParams, TemporalParams
from effivmt.errors import EffiVMTError
from effivmt.method.batches import Batch, first_of_batch, sparse_batch
from effivmt.method.checkpoint import load_checkpoint, save_checkpoint
from effivmt.method.device import deterministic_gradients
from effivmt.method.dual_path import add_lora, draw_weights, dual_path, hold_text, lora_parameters
from effivmt.method.experts import ONLY, Expert
from effivmt.method.heads import HeadMap
from effivmt.method.losses import add_noise, denoising_loss, draw_sigmas, motion_loss, velocity
from effivmt.method.prediction import FirstFrame, predict_velocity
from effivmt.method.rope import time_positions_of
from effivmt.method.seeding import generator
from effivmt.store.durable import remove

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""
Notice = Callable[[str], None]
"""Called with one line where a tuning has diverged and goes on at a lower rate."""
LOWEST = 1 / 8
"""Least share of the learning rate that a tuning goes on at, after three halvings; then it fails."""
SHARE = "learning_rate_share"
"""Among the losses of a tuning that has diverged: the share of the learning rate that each step was taken at."""


@dataclass(frozen=True)
class TuningResult:
    """LoRA weights of one branch by module name, and the loss of each step by the loss's name (and, rarely, `SHARE`).

    A weight is named `blocks.0.attn1.to_q.spatial.lora_A`, or `blocks.0.attn1.to_q.lora_A` where the branches are not
    decoupled and the LoRA covers whole projections.
    """

    weights: dict[str, torch.Tensor]
    losses: dict[str, list[float]]


def tune_spatial(
    transformer: WanTransformer3DModel,
    heads: HeadMap,
    frames: torch.Tensor,
    caption: torch.Tensor,
    *,
    params: SpatialParams,
    seed: int,
    clip: str,
    checkpoint: Path,
    progress: Progress | None = None,
    on_divergence: Notice | None = None,
    expert: Expert = ONLY,
) -> TuningResult:
    """Stage 2: LoRA on the spatial branches, from single frames (M, C, 1, h, w), each encoded alone.

    caption (1, tokens, channels); `clip` names the clip in the seeds; `expert` says whose transformer it is, which has
    its own noise levels. Training resumes from the file `checkpoint` where it exists. Where a loss, also that of the
    last weights, is not finite, it goes on from there or from the start at half the rate and calls `on_divergence`.
    Raises EffiVMTError when no head is spatial, and when the loss is not finite before the first step or still at
    `LOWEST` of the learning rate.
    """

    def draw(random: torch.Generator) -> Batch:
        return Batch(frames[torch.randint(len(frames), (params.batch,), generator=random)], None)

    return _tune(
        transformer,
        heads,
        "spatial",
        draw,
        caption=caption,
        params=params,
        motion_weight=0.0,
        seed=seed,
        clip=clip,
        checkpoint=checkpoint,
        progress=progress,
        on_divergence=on_divergence,
        expert=expert,
    )


def tune_temporal(
    transformer: WanTransformer3DModel,
    heads: HeadMap,
    latents: torch.Tensor,
    caption: torch.Tensor,
    *,
    params: TemporalParams,
    sampling: SamplingParams,
    num_frames: int,
    seed: int,
    clip: str,
    checkpoint: Path,
    weights: torch.Tensor | None = None,
    first: FirstFrame | None = None,
    progress: Progress | None = None,
    on_divergence: Notice | None = None,
    expert: Expert = ONLY,
    until: int | None = None,
) -> TuningResult:
    """Stage 3: LoRA on the temporal branches, from sparse frames with adaptive RoPE; L = L_denoise + lambda L_motion.

    latents: (phases, C, F', h, w) of the sampled and then encoded frames for `pixel` sampling, (1, C, F, h, w) of the
    dense clip for every other; `num_frames` is T of the dense clip. The spatial adapter must be merged into
    the transformer's weights. weights, (phases, 1, F', h, w) or (1, 1, F, h, w), in [0, 1]: how much each position
    counts in the losses; None: all alike. first: the clip's first frame, where it is given; `sampling` must then keep
    it. until: a multiple of `params.save_every`, of which it saves a checkpoint; it returns the weights that it has
    then, or those of a later checkpoint, and the next call goes on from there with the result of one call. The other
    arguments and the errors are those of `tune_spatial`.
    """

    kinds = [latents]  # drawn together
    if weights is not None:
        kinds.append(weights)
    if first is not None:
        kinds.append(first.latents.expand(-1, -1, latents.shape[2], -1, -1))
    joined, channels = torch.cat(kinds, dim=1), [kind.shape[1] for kind in kinds]

    def draw(random: torch.Generator) -> Batch:
        batch = sparse_batch(joined, sampling, params.rope, num_frames=num_frames, batch=params.batch, random=random)
        drawn, *others = batch.latents.split(channels, dim=1)
        weighed = None if weights is None else others.pop(0)
        return Batch(drawn, batch.positions, weighed, None if first is None else first_of_batch(first, *others))

    return _tune(
        transformer,
        heads,
        "temporal",
        draw,
        caption=caption,
        image=None if first is None else first.embedding,
        params=params,
        motion_weight=params.motion_weight,
        seed=seed,
        clip=clip,
        checkpoint=checkpoint,
        progress=progress,
        on_divergence=on_divergence,
        expert=expert,
        until=until,
    )


def _tune(
    transformer: WanTransformer3DModel,
    heads: HeadMap,
    branch: str,
    draw: Callable[[torch.Generator], Batch],
    *,
    caption: torch.Tensor,
    image: torch.Tensor | None = None,
    params: LoraParams,
    motion_weight: float,
    seed: int,
    clip: str,
    checkpoint: Path,
    progress: Progress | None,
    on_divergence: Notice | None,
    expert: Expert,
    until: int | None = None,
) -> TuningResult:
    assert until is None or (until % params.save_every == 0 and until < params.steps)
    device, dtype = transformer.device, transformer.dtype
    caption = caption.to(device, dtype)
    with (
        deterministic_gradients(device),
        _frozen(transformer, gradient_checkpointing=params.gradient_checkpointing),
        dual_path(transformer, heads),
        time_positions_of(transformer) as rope,
    ):
        weights = add_lora(
            transformer, branch if heads.decoupled else None, params.rank, generator(seed, branch, clip, "init")
        )
        hold_text(transformer, caption, None if image is None else image.to(device, dtype))
        no_text = caption[:, :0]

        def begin() -> tuple[torch.optim.AdamW, int, dict[str, list[float]]]:
            """The optimizer, steps done and losses of the checkpoint, with its weights; without one, of the start."""
            draw_weights(weights, generator(seed, branch, clip, "init"))
            leaves, decay = lora_parameters(transformer), params.weight_decay
            fused = device.type != "meta"  # torch fuses nothing on tensors without data, by which a plan counts
            optimizer = torch.optim.AdamW(leaves, lr=params.learning_rate, weight_decay=decay, fused=fused)
            return optimizer, *load_checkpoint(checkpoint, weights, optimizer)

        def losses_at(step: int) -> tuple[torch.Tensor, torch.Tensor]:
            """Denoising and motion loss on the batch of a step."""
            random = generator(seed, branch, clip, step)
            batch = draw(random)
            noise = torch.randn(batch.latents.shape, generator=random)
            sigmas = draw_sigmas(params.batch, params.flow_shift, random, expert.noise)
            noised = add_noise(batch.latents, noise, sigmas).to(device, dtype)
            rope.positions = None if batch.positions is None else batch.positions.to(device)
            timesteps, first = (1000 * sigmas).to(device), batch.first
            predicted = predict_velocity(transformer, noised, timesteps, no_text, expert=expert, first=first)
            target = velocity(batch.latents, noise).to(device)
            counts = None if batch.weights is None else batch.weights.to(device)
            if first is not None:
                predicted, target = predicted[:, :, first.predicted], target[:, :, first.predicted]
                counts = None if counts is None else counts[:, :, first.predicted]
            return denoising_loss(predicted, target, counts), motion_loss(predicted, target, counts)

        optimizer, step, losses = begin()
        saved, share = step, losses.get(SHARE, [1.0])[-1]
        while until is None or step < until:
            with torch.set_grad_enabled(step < params.steps):  # the last weights are only looked at, on the last batch
                denoising, motion = losses_at(min(step, params.steps - 1))
                loss = denoising + motion_weight * motion
            if not loss.isfinite():
                fault = f"its loss is {loss.item()} at step {step + 1} of {params.steps}"
                if step == params.steps:
                    fault = f"its loss is {loss.item()} after the last of {params.steps} steps"
                _check_rate(branch, fault, step=step, share=share, learning_rate=params.learning_rate)
                if step == saved:  # the checkpoint has the weights that are no good
                    remove(checkpoint)
                optimizer, step, losses = begin()
                saved, share = step, share / 2
                if on_divergence is not None:
                    rate = share * params.learning_rate
                    on_divergence(
                        f"{branch} tuning diverged: {fault}; it goes on after step {step} at half the rate, {rate:g}"
                    )
                continue
            if step == params.steps:
                break
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if params.max_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(lora_parameters(transformer), params.max_grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = share * params.learning_rate * _schedule(step, params.steps)
            optimizer.step()
            losses.setdefault("denoising", []).append(denoising.item())
            if branch == "temporal":
                losses.setdefault("motion", []).append(motion.item())
            if share < 1:
                losses.setdefault(SHARE, [1.0] * step).append(share)
            step += 1
            if step % params.save_every == 0 and step < params.steps:
                save_checkpoint(checkpoint, step, weights, optimizer, logs=losses)
                saved = step
            if progress is not None:
                progress(step, params.steps)
        result = {name: weight.detach().float().cpu().clone() for name, weight in weights.items()}
    return TuningResult(result, losses)


def _check_rate(branch: str, fault: str, *, step: int, share: float, learning_rate: float) -> None:
    """Raises EffiVMTError where no lower rate is left to try, or would help: the loss was never finite."""
    if step == 0:
        raise EffiVMTError(
            f"{branch} tuning diverged: {fault}, before the first update: the weights of the backbone, of an adapter "
            "merged into it, or the clip's latents are damaged"
        )
    if share <= LOWEST:
        raise EffiVMTError(
            f"{branch} tuning diverged: {fault}, even at {share:g} of {branch}.learning_rate={learning_rate:g}; "
            f"lower {branch}.learning_rate"
        )


@contextmanager
def _frozen(transformer: WanTransformer3DModel, *, gradient_checkpointing: bool) -> Iterator[None]:
    """Freezes the base weights, and while the context lasts turns gradient checkpointing on where it is asked for."""
    transformer.requires_grad_(False)
    if gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    try:
        yield
    finally:
        transformer.disable_gradient_checkpointing()


def _schedule(step: int, steps: int) -> float:
    """Learning-rate factor of a step, counted from 0: a warm-up over 10 steps, then 1, then a linear decay to 0.1.

    The decay runs over the last third of the steps: 0.1 + 0.9 (steps - step) / (steps / 3) is 1 at two thirds and 0.1
    at the end, and 0.9 * 3 = 2.7.
    """
    return min(1.0, (step + 1) / 10, 0.1 + 2.7 * (steps - step) / steps)
