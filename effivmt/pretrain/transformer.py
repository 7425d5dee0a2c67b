"""Trains the embedded backbone's transformer and text encoder together, by flow matching on cached latents."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from operator import methodcaller
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from torch import nn
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from effivmt.method.checkpoint import load_checkpoint, save_checkpoint
from effivmt.method.losses import draw_sigmas
from effivmt.method.seeding import generator
from effivmt.pretrain.latents import Captioned
from effivmt.pretrain.log import Log
from effivmt.pretrain.noise_levels import NoiseLevels
from effivmt.pretrain.precision import fast_products
from effivmt.pretrain.prediction import PredictionErrors
from effivmt.pretrain.replay import replayed
from effivmt.pretrain.text import MAX_TOKENS

CONFIG = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 8,
    "attention_head_dim": 32,
    "in_channels": 32,
    "out_channels": 32,
    "text_dim": 128,
    "freq_dim": 128,
    "ffn_dim": 768,
    "num_layers": 7,
    "cross_attn_norm": True,
    "rope_max_seq_len": 256,
}
PAD_COUNTS = (1, 4, 8, 16, 100, 496)


def train_transformer(
    transformer: WanTransformer3DModel,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerBase,
    clips: Captioned,
    stills: Captioned,
    folder: Path,
    *,
    steps: int,
    batch: int,
    frames: tuple[int, ...],
    learning_rate: float = 1.5e-3,
    final_rate: float = 1e-4,
    flow_shift: float = 2.0,
    average: float = 0.999,
    seed: int = 0,
    save_every: int = 200,
    fast: bool = False,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, list[float]]:
    """Trains both models in place for `steps` steps and leaves the running average of their weights in them.

    clips (M, C, F, h, w) and stills (M', C, 1, h, w) hold normalised latents. Each step draws n from `frames`: 1 takes
    stills, F whole clips, and any number between the first latent frame and n - 1 others of clips, at their true places
    in time: what a caption says of a path shows at a fraction of the cost. A step sees `batch` whole clips, or as many
    shorter ones (at most 4 times as many) as cost the same. Captions are left out one time in ten. Every noise level
    counts the same in the loss (`NoiseLevels`); the log holds the plain one. Both models are trained on the device
    where they are; a GPU replays forward and backward as a graph. `fast` compiles the blocks, which takes a C++
    compiler, and lets them multiply in bfloat16 where the device is faster so. Resumes from
    `folder`/transformer.safetensors.
    """
    device = transformer.device
    clips, stills = (Captioned(data.latents.to(device), data.captions) for data in (clips, stills))
    options = {"padding": "max_length", "max_length": MAX_TOKENS, "truncation": True, "return_tensors": "pt"}
    tokens = {data: tokenizer(data.captions, **options).to(device) for data in (clips, stills)}
    empty = tokenizer("", **options).to(device)
    log_copies = torch.tensor(PAD_COUNTS).log().to(device)
    model = nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder})
    parameters = dict(model.named_parameters())
    averages = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    levels = NoiseLevels(device)
    state = {**parameters, **{f"average.{name}": tensor for name, tensor in averages.items()}}
    state["levels"] = levels.expected
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True
    )
    path = folder / "transformer.safetensors"
    start, done = load_checkpoint(path, state, optimizer)
    log = Log(done, device)
    transformer.train()
    products = partial(fast_products, transformer.blocks, device) if fast else nullcontext
    whole = clips.latents.shape[2]
    there = methodcaller("to", device, non_blocking=True)
    errors_of = PredictionErrors(transformer, text_encoder, products)
    with errors_of.prepared():
        if fast:
            for block in transformer.blocks:
                block.compile(dynamic=False)
        ready: dict[int, Callable[..., torch.Tensor]] = {}
        for step in range(start, steps):
            random = generator(seed, "transformer", step)
            rate = final_rate + (learning_rate - final_rate) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 200)
            count = frames[int(torch.randint(len(frames), (), generator=random))]
            data = stills if count == 1 else clips
            size = min(4 * batch, batch * whole // count)
            picks = there(torch.randint(len(data.captions), (size,), generator=random))
            clean, positions = _some_frames(data.latents[picks], count, random)
            ids, mask = tokens[data].input_ids[picks], tokens[data].attention_mask[picks]
            silent = there(torch.rand(size, generator=random) < 0.1)[:, None]
            ids = torch.where(silent, empty.input_ids, ids)
            mask = torch.where(silent, empty.attention_mask, mask)
            pad_bias = log_copies[there(torch.randint(len(PAD_COUNTS), (size,), generator=random))]
            sigmas = there(draw_sigmas(size, flow_shift, random))
            noise = torch.randn(clean.shape, generator=generator(seed, "noise", step, device=device), device=device)
            inputs = (clean, noise, sigmas, ids, mask, pad_bias, *(() if positions is None else (positions,)))
            if count not in ready:
                ready[count] = replayed(errors_of, inputs)
            errors = ready[count](*inputs)
            optimizer.zero_grad(set_to_none=True)
            levels.weigh(errors, sigmas, still=count == 1).backward()
            torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()
            decay = min(average, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(averages.values()), [p.detach() for p in parameters.values()], 1 - decay)
            log.add(loss=errors.detach().mean(), frames=count)
            if (step + 1) % save_every == 0 or step + 1 == steps:
                save_checkpoint(path, step + 1, state, optimizer, logs=log.read())
            if report is not None and log.due(step + 1):
                report(step + 1, log.newest())
    use_average(model, averages)
    return log.read()


def _some_frames(
    latents: torch.Tensor, count: int, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The first and count - 1 other latent frames of each clip (B, C, F, h, w), and where they stand (B, count).

    float32 (B, C, count, h, w) and, where these are all frames, None for the stock positions.
    """
    size, _, whole = latents.shape[:3]
    if count == whole:
        return latents.float(), None
    others = torch.rand(size, whole - 1, generator=random).argsort(1)[:, : count - 1].sort(1).values + 1
    kept = torch.cat([torch.zeros(size, 1, dtype=torch.long), others], dim=1)
    kept = kept.to(latents.device)
    index = kept[:, None, :, None, None].expand(-1, latents.shape[1], -1, *latents.shape[3:])
    return latents.gather(2, index).float(), kept.double()


def use_average(model: nn.ModuleDict, averages: dict[str, torch.Tensor]) -> None:
    """Replaces the weights of a model by their running average."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(averages[name])
