"""Head-sparse attention, simulated on wan-tiny: what a video keeps when each head sees only a part of the tokens.

Spatial mask: the tokens of the own, the neighbouring and the first latent frame. Temporal mask: the same quarter of the
picture in all frames. In all steps but the first quarter a head takes the mask that changes its output less, where the
change stays below a bound; it stays dense elsewhere. An oracle decides: it compares with the dense output. Work is the
products of queries and keys that are left, so the speed that a perfect kernel could reach is its inverse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from torch.nn import functional as F

from effivmt.config import Params
from effivmt.method.backbone import Backbone
from effivmt.method.head_scores import self_attentions
from effivmt.method.rendering import render
from effivmt.method.rope import rotate
from timing import Value, arguments, machine, report

PROMPTS = (
    "a red square moving left on a navy background",
    "a yellow star and a blue circle on a black background",
    "a person in a red shirt walking on a gray background",
    "the camera pans left over a striped brown ground",
)
BOUNDS = (0.01, 0.02, 0.05, 0.1, 0.3, float("inf"))


@dataclass
class Counted:
    """Of all calls of a head: those that took a mask, and the work that was left; `bound` None: attention is stock."""

    bound: float | None = None
    calls: int = 0
    sparse: float = 0.0
    work: float = 0.0


class MaskedProcessor(WanAttnProcessor):
    """Self-attention in which each head takes the better one of two masks (S, S) where its error is below the bound."""

    def __init__(self, masks: Sequence[torch.Tensor], counted: Counted) -> None:
        super().__init__()
        self.masks, self.counted = masks, counted

    def __call__(  # noqa: PLR0917  (the signature is diffusers')
        self,
        attn: WanAttention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        counted = self.counted
        if counted.bound is None or rotary_emb is None:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        projected = (attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(hidden_states)))
        query, key = (rotate(x.unflatten(2, (attn.heads, -1)), *rotary_emb).transpose(1, 2) for x in projected)
        value = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1)).transpose(1, 2)
        dense = F.scaled_dot_product_attention(query, key, value)
        masked = [F.scaled_dot_product_attention(query, key, value, attn_mask=mask) for mask in self.masks]
        power = dense.square().mean((0, 2, 3))
        errors = torch.stack([(out - dense).square().mean((0, 2, 3)) / power for out in masked])
        better, error = errors.argmin(0), errors.amin(0)
        out = torch.where((better == 0)[:, None, None], *masked)
        taken = error < counted.bound
        out = torch.where(taken[:, None, None], out, dense)
        shares = torch.tensor([mask.float().mean() for mask in self.masks])[better]
        counted.calls += attn.heads
        counted.sparse += float(taken.sum())
        counted.work += float(torch.where(taken, shares, 1.0).sum())
        for module in attn.to_out:
            out = module(out if out.ndim == 3 else out.transpose(1, 2).flatten(2))
        return out


def masks_of(frames: int, height: int, width: int) -> list[torch.Tensor]:
    """The spatial and the temporal mask, bool (S, S), over a grid of tokens."""
    token = torch.arange(frames * height * width)
    frame, row, column = token // (height * width), token // width % height, token % width
    spatial = ((frame[:, None] - frame).abs() <= 1) | (frame == 0)
    tile = row // (height // 2) * 2 + column // (width // 2)
    return [spatial, tile[:, None] == tile]


def frames_of(backbone: Backbone, prompt: str, params: Params, counted: Counted, *, bound: float | None) -> np.ndarray:
    """A rendered prompt, float64 (T, H, W, 3); the first quarter of the steps is dense."""
    embedding, negative = backbone.encode_texts([prompt, ""])
    counted.bound = None

    def progress(done: int, steps: int) -> None:
        counted.bound = bound if 4 * done >= steps else None

    frames = render(
        backbone, None, embedding, negative, params=params.render, size=params.ingest, seed=0, progress=progress
    )
    return frames.astype(np.float64)


def main() -> None:
    """Renders each prompt dense and at each bound."""
    parser = arguments(__doc__ or "", "head_sparse")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="prompts that are rendered")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    params, counted = Params(), Counted()
    backbone = Backbone(params.backbone.model_copy(update={"device": "cpu"}))
    grid = ((params.ingest.num_frames - 1) // 4 + 1, params.ingest.height // 16, params.ingest.width // 16)
    for attention in self_attentions(backbone.transformer):
        attention.set_processor(MaskedProcessor(masks_of(*grid), counted))
    prompts = PROMPTS[: asked.prompts]
    dense = [frames_of(backbone, prompt, params, counted, bound=None) for prompt in prompts]
    rows: list[Mapping[str, Value]] = []
    for bound in BOUNDS:
        counted.calls, counted.sparse, counted.work = 0, 0.0, 0.0
        errors = [
            np.square(frames_of(backbone, prompt, params, counted, bound=bound) - exact).mean()
            for prompt, exact in zip(prompts, dense, strict=True)
        ]
        psnr = [10 * np.log10(255**2 / error) for error in errors]
        rows.append(
            {
                "error bound": bound if np.isfinite(bound) else "none",
                "heads with a mask": counted.sparse / counted.calls,
                "work left": counted.work / counted.calls,
                "PSNR, dB, mean": float(np.mean(psnr)),
                "least": float(np.min(psnr)),
            }
        )
    report(asked.out, "Head-sparse attention, simulated", rows, machine("cpu", "float32"))


if __name__ == "__main__":
    main()
