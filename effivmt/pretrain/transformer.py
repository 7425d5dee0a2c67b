"""Trains the embedded backbone's transformer and text encoder together, by flow matching on latents of clips."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from effivmt.method.checkpoint import load_checkpoint, save_checkpoint
from effivmt.method.losses import draw_sigmas
from effivmt.method.seeding import generator
from effivmt.pretrain.log import Log
from effivmt.pretrain.noise_levels import NoiseLevels
from effivmt.pretrain.pool import Pool, tokens_of
from effivmt.pretrain.precision import fast_products
from effivmt.pretrain.prediction import PredictionErrors
from effivmt.pretrain.replay import replayed

CONFIG: dict[str, Any] = {  # arguments of WanTransformer3DModel, each of its own type
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
    pools: Mapping[int, Pool],
    *,
    folder: Path,
    steps: int,
    batch_frames: int,
    frames: tuple[int, ...],
    sparse_of: int | None = None,
    continued: float = 0.0,
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

    `pools` hold stills (under 1) and clips by their number of latent frames. Each step draws n from `frames` and sees
    about `batch_frames` latent frames: whole clips of n, or, where `sparse_of` is given, n latent frames of clips of as
    many: the first, the last and random others, at their true places in time; what a caption says of a path shows at a
    fraction of the cost. In a share `continued` of the steps that see clips the first latent frame is given. Captions
    are left out one time in ten. Every noise level counts the same in the loss (`NoiseLevels`); the log holds the plain
    one. Both models are trained on the device where they are; a GPU replays forward and backward as a graph. `fast`
    compiles the blocks, which takes a C++ compiler, and lets them multiply in bfloat16 where the device is faster so.
    Resumes from `folder`/transformer.safetensors.
    """
    device = transformer.device
    empty = {name: part.to(device) for name, part in tokens_of(tokenizer, [""]).items()}
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
    used: Counter[int] = Counter()  # latent frames
    for count in map(int, done.get("frames", ())):
        used[pool_of(count, sparse_of)] += _samples(count, batch_frames) * count
    log = Log(done, device)
    transformer.train()
    products = partial(fast_products, transformer.blocks, device) if fast else nullcontext
    to_device = methodcaller("to", device, non_blocking=True)
    with PredictionErrors(transformer, text_encoder, products).prepared() as errors_of:
        if fast:
            for block in transformer.blocks:
                block.compile(dynamic=True)
        ready: dict[tuple[int, bool], Callable[..., torch.Tensor]] = {}
        for step in range(start, steps):
            random = generator(seed, "transformer", step)
            rate = final_rate + (learning_rate - final_rate) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 200)
            count = frames[int(torch.randint(len(frames), (), generator=random))]
            given = count > 1 and float(torch.rand((), generator=random)) < continued
            size, pool = _samples(count, batch_frames), pool_of(count, sparse_of)
            data = pools[pool].after(used[pool] / pool)
            picks = to_device(torch.randint(len(data.ids), (size,), generator=random))
            clean, positions = some_frames(data.latents[picks], count, random)
            uncaptioned = to_device(torch.rand(size, generator=random) < 0.1)[:, None]
            ids = torch.where(uncaptioned, empty["input_ids"], data.ids[picks])
            mask = torch.where(uncaptioned, empty["attention_mask"], data.mask[picks])
            pad_bias = log_copies[to_device(torch.randint(len(PAD_COUNTS), (size,), generator=random))]
            sigmas = to_device(draw_sigmas(size, flow_shift, random))
            noise = torch.randn(clean.shape, generator=generator(seed, "noise", step, device=device), device=device)
            frame_sigmas = F.pad(sigmas[:, None].expand(-1, count - 1), (1, 0)) if given else sigmas
            inputs = (clean, noise, frame_sigmas, ids, mask, pad_bias, *(() if positions is None else (positions,)))
            if (count, given) not in ready:
                ready[count, given] = replayed(errors_of, inputs)
            errors = ready[count, given](*inputs)
            optimizer.zero_grad(set_to_none=True)
            kind = "still" if count == 1 else "continued" if given else "clip"
            levels.weigh(errors, sigmas, kind=kind).backward()
            torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()
            decay = min(average, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(averages.values()), [p.detach() for p in parameters.values()], 1 - decay)
            used[pool] += size * count
            log.add(loss=errors.detach().mean(), frames=count, given=int(given))
            if (step + 1) % save_every == 0 or step + 1 == steps:
                save_checkpoint(path, step + 1, state, optimizer, logs=log.read())
            if report is not None and log.due(step + 1):
                report(step + 1, log.newest())
    use_average(model, averages)
    return log.read()


def _samples(count: int, batch_frames: int) -> int:
    """Samples of `count` latent frames that a step sees."""
    return max(1, batch_frames // count)


def pool_of(count: int, sparse_of: int | None) -> int:
    """The latent frames of what samples of `count` latent frames are taken from."""
    return 1 if count == 1 else sparse_of or count


def some_frames(latents: torch.Tensor, count: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The first, the last and count - 2 other latent frames of each clip (B, C, F, h, w), and where they stand
    (B, count); of count 2 the first and the last.

    float32 (B, C, count, h, w) and, where these are all frames, None for the stock positions.
    """
    size, _, whole = latents.shape[:3]
    if count == whole:
        return latents.float(), None
    others = torch.rand(size, whole - 2, generator=random).argsort(1)[:, : count - 2].sort(1).values + 1
    first, last = (torch.full((size, 1), place) for place in (0, whole - 1))
    kept = torch.cat([first, others, last], dim=1).to(latents.device)
    index = kept[:, None, :, None, None].expand(-1, latents.shape[1], -1, *latents.shape[3:])
    return latents.gather(2, index).float(), kept.double()


def use_average(model: nn.ModuleDict, averages: dict[str, torch.Tensor]) -> None:
    """Replaces the weights of a model by their running average."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(averages[name])
