"""Makes a tiny Wan 2.2 A14B: two copies of a backbone's transformer, tuned apart on the two sides of a noise level.

Tests and trials of what is for two experts need a pair that was trained; a few hundred steps on a few clips cost
minutes of one core.
"""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from effivmt.errors import BackboneError
from effivmt.method.experts import Expert, experts_of
from effivmt.method.losses import draw_sigmas
from effivmt.method.seeding import generator
from effivmt.pretrain.latents import encode_clips
from effivmt.pretrain.plans import LONGEST
from effivmt.pretrain.pool import Examples, tokens_of
from effivmt.pretrain.prediction import PredictionErrors
from effivmt.pretrain.recipe import KINDS, MIX
from effivmt.pretrain.transformer import PAD_COUNTS, some_frames
from effivmt.world.looks import names_held_out
from effivmt.world.scenes import draw_clip

BOUNDARY = 0.875
"""The noise level at which the experts of Wan 2.2 T2V A14B change."""
_WORLD = 2000
"""The number of a data set of the world that no other training uses."""
_FLOW_SHIFT = 2.5


@dataclass(frozen=True)
class Effort:
    """How much each expert is tuned: `steps` of `batch` samples, each of `frames` latent frames of one of `clips`."""

    steps: int = 200
    clips: int = 32
    batch: int = 4
    frames: int = 5
    learning_rate: float = 1e-4


def tune_apart(
    start: Path,
    out: Path,
    *,
    device: torch.device,
    effort: Effort = Effort(),
    report: Callable[[str, int, int], None] | None = None,
) -> dict[str, list[float]]:
    """Writes the WanPipeline folder `out`: that of `start`, with two transformers; returns the losses of each expert.

    `report` is called with (expert, steps done, steps in all). BackboneError where `start` is no WanPipeline folder.
    """
    if not (start / "model_index.json").is_file():
        raise BackboneError(f"{start} is no WanPipeline folder; give --start one, such as data/wan-tiny")
    pipeline = WanPipeline.from_pretrained(start, dtype=torch.float32)
    text_encoder = pipeline.text_encoder.to(device).requires_grad_(False)
    examples = _examples(pipeline.vae.to(device).eval(), pipeline.tokenizer, effort.clips, device)
    losses, tuned = {}, {}
    for expert in experts_of(BOUNDARY):
        transformer = WanTransformer3DModel.from_pretrained(start, subfolder="transformer", dtype=torch.float32)
        tuned[expert.component] = transformer.to(device)
        done = None if report is None else partial(report, expert.name)
        losses[expert.name] = _tune(transformer, text_encoder, examples, expert=expert, effort=effort, report=done)
    WanPipeline(
        tokenizer=pipeline.tokenizer,
        text_encoder=text_encoder.half(),
        vae=pipeline.vae.half(),
        scheduler=pipeline.scheduler,
        transformer=tuned["transformer"].half(),
        transformer_2=tuned["transformer_2"].half(),
        boundary_ratio=BOUNDARY,
    ).save_pretrained(out, safe_serialization=True)
    (out / "losses.json").write_text(json.dumps(losses), encoding="utf-8")
    return losses


def _tune(
    transformer: WanTransformer3DModel,
    text_encoder: UMT5EncoderModel,
    examples: Examples,
    *,
    expert: Expert,
    effort: Effort,
    report: Callable[[int, int], None] | None,
) -> list[float]:
    """Tunes all weights of a transformer in place, by flow matching at its expert's noise levels; each step's loss."""
    optimizer = torch.optim.AdamW(transformer.parameters(), lr=effort.learning_rate, betas=(0.9, 0.98))
    pads, losses = torch.tensor(PAD_COUNTS).log(), []
    transformer.train()
    with PredictionErrors(transformer, text_encoder, nullcontext).prepared() as errors_of:
        for step in range(effort.steps):
            random = generator(0, "experts", expert.name, step)
            picks = torch.randint(len(examples.ids), (effort.batch,), generator=random)
            clean, positions = some_frames(examples.latents[picks], effort.frames, random)
            sigmas = draw_sigmas(effort.batch, _FLOW_SHIFT, random, expert.noise)
            noise = torch.randn(clean.shape, generator=random)
            pad_bias = pads[torch.randint(len(pads), (effort.batch,), generator=random)]
            drawn = [tensor.to(clean.device) for tensor in (noise, sigmas)]
            loss = errors_of(
                clean, *drawn, examples.ids[picks], examples.mask[picks], pad_bias.to(clean.device), positions
            ).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = effort.learning_rate * min(1.0, (step + 1) / 10, 2 * (1 - step / effort.steps))
            optimizer.step()
            losses.append(round(loss.item(), 6))
            if report is not None:
                report(step + 1, effort.steps)
    transformer.eval()
    return losses


def _examples(vae: AutoencoderKLWan, tokenizer: PreTrainedTokenizerBase, count: int, device: torch.device) -> Examples:
    """Captioned latents of `count` clips of the longest length, less those whose captions name a held-out look."""
    draw = partial(draw_clip, _WORLD, kinds=KINDS, mix=MIX, num_frames=4 * LONGEST - 3)
    clips = [clip for clip in map(draw, range(count)) if not names_held_out(clip.caption)]
    mean, std = (torch.tensor(vae.config[name]).view(-1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    latents = (encode_clips(vae, clips).float() - mean) / std
    tokens = tokens_of(tokenizer, [clip.caption for clip in clips])
    return Examples(*(part.to(device) for part in (latents.half(), tokens["input_ids"], tokens["attention_mask"])))
