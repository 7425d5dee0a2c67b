"""Trains the embedded backbone's transformer and text encoder together, by flow matching on cached latents."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import nn
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from effivmt.checkpoint import load_checkpoint, save_checkpoint
from effivmt.objectives import add_noise, denoising_loss, draw_sigmas, velocity
from effivmt.pretrain.precision import bfloat16_products
from effivmt.pretrain.text import MAX_TOKENS
from effivmt.seeding import generator

CONFIG = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 8,
    "attention_head_dim": 24,
    "in_channels": 24,
    "out_channels": 24,
    "text_dim": 128,
    "freq_dim": 128,
    "ffn_dim": 640,
    "num_layers": 6,
    "cross_attn_norm": True,
    "rope_max_seq_len": 256,
}
PAD_COUNTS = (1, 4, 8, 16, 100, 496)


class PadBias(WanAttnProcessor):
    """Cross-attention that sees one padding token as if it were there `bias` = log n times.

    WanPipeline pads prompts with zero embeddings that are not masked; a model trained with this bias at random n takes
    any padded length.
    """

    bias: torch.Tensor | None = None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        return super().__call__(attn, hidden_states, encoder_hidden_states, self.bias, rotary_emb)


def train_transformer(
    transformer: WanTransformer3DModel,
    text_encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerBase,
    latents: torch.Tensor,
    captions: list[str],
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
    bfloat16: bool = False,
    compile_blocks: bool = False,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, list[float]]:
    """Trains both models in place for `steps` steps and leaves the running average of their weights in them.

    latents: normalised, float16 or float32 (M, C, F, h, w); each step takes their first n latent frames, n drawn from
    `frames` (1 gives single frames). Captions are left out one time in ten. bfloat16: the blocks' linear layers
    multiply in it; compile_blocks needs a C++ compiler; on one processor core both together give 1.7 times the speed.
    Resumes from `folder`/transformer.safetensors.
    """
    tokens = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    empty = tokenizer("", padding="max_length", max_length=MAX_TOKENS, return_tensors="pt")
    model = nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder})
    parameters = dict(model.named_parameters())
    averages = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    state = {**parameters, **{f"average.{name}": tensor for name, tensor in averages.items()}}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True
    )
    path = folder / "transformer.safetensors"
    start, logs = load_checkpoint(path, state, optimizer)
    transformer.train()
    products = bfloat16_products(transformer.blocks) if bfloat16 else nullcontext()
    with _padded(transformer) as pad, products:
        if compile_blocks:
            for block in transformer.blocks:
                block.compile(dynamic=False)
        for step in range(start, steps):
            random = generator(seed, "transformer", step)
            rate = final_rate + (learning_rate - final_rate) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 200)
            count = frames[int(torch.randint(len(frames), (), generator=random))]
            size = batch if count > 1 else 2 * batch
            picks = torch.randint(len(latents), (size,), generator=random)
            clean = latents[picks, :, :count].float()
            ids, mask = tokens.input_ids[picks], tokens.attention_mask[picks]
            silent = torch.rand(size, generator=random) < 0.1
            ids, mask = (
                torch.where(silent[:, None], empty.input_ids, ids),
                torch.where(silent[:, None], empty.attention_mask, mask),
            )
            text = text_encoder(ids, mask).last_hidden_state * mask[..., None]
            text = torch.cat([text, text.new_zeros(size, 1, text.shape[2])], dim=1)
            copies = torch.tensor(PAD_COUNTS)[torch.randint(len(PAD_COUNTS), (size,), generator=random)]
            bias = torch.where(mask.bool(), 0.0, -torch.inf)
            pad.bias = torch.cat([bias, copies.log()[:, None]], dim=1)[:, None, None]
            sigmas = draw_sigmas(size, flow_shift, random)
            noise = torch.randn(clean.shape, generator=random)
            predicted = transformer(add_noise(clean, noise, sigmas), 1000 * sigmas, text, return_dict=False)[0]
            loss = denoising_loss(predicted, velocity(clean, noise))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimizer.step()
            decay = min(average, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(averages.values()), [p.detach() for p in parameters.values()], 1 - decay)
            logs.setdefault("loss", []).append(round(loss.item(), 6))
            logs.setdefault("frames", []).append(count)
            if (step + 1) % save_every == 0 or step + 1 == steps:
                save_checkpoint(path, step + 1, state, optimizer, logs)
            if report is not None:
                report(step + 1, {name: values[-1] for name, values in logs.items()})
    use_average(model, averages)
    return logs


@contextmanager
def _padded(transformer: WanTransformer3DModel) -> Iterator[PadBias]:
    """Within the context every block's cross-attention takes its bias from one PadBias."""
    pad = PadBias()
    for block in transformer.blocks:
        block.attn2.set_processor(pad)
    try:
        yield pad
    finally:
        for block in transformer.blocks:
            block.attn2.set_processor(WanAttnProcessor())


def use_average(model: nn.ModuleDict, averages: dict[str, torch.Tensor]) -> None:
    """Replaces the weights of a model by their running average."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(averages[name])
