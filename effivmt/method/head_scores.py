"""How spatial and how temporal each attention head is (paper, section 3.2), measured in one forward of the transformer.

The attention map of a head, A = softmax(q k^T / sqrt(D)) over all S = F h w tokens, is compared with two templates of
equal area that share no token. The temporal one lies along the diagonals parallel to the main one: for each query the
tokens around the same position in every other frame. The spatial one lies along the main diagonal: for each query the
nearest other tokens of the flattened sequence, that is, of the same or a neighbouring frame. The query token itself
belongs to neither. No S x S map is ever built: only the rows of some query tokens are, in blocks.

Two criteria turn a template into a score in [0, 1]:

- attention_mass (paper): the attention mass under it.
- output_error (Sparse VideoGen, arXiv 2502.01776, online profiling): how well the head's output is kept where it sees
  the template alone, 1 / (1 + e), e being the squared error of the output relative to its squared norm. As there, the
  first latent frame is always seen; so is the query token.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformer3DModel

from effivmt.errors import EffiVMTError
from effivmt.method.experts import ONLY, Expert
from effivmt.method.prediction import FirstFrame, predict_velocity
from effivmt.method.rope import rotate

Criterion = Literal["attention_mass", "output_error"]
_BLOCK_BYTES = 256 * 2**20


def attention_scores(
    transformer: WanTransformer3DModel,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    text: torch.Tensor,
    *,
    band: float | None,
    query_rows: int,
    criterion: Criterion = "attention_mass",
    expert: Expert = ONLY,
    first: FirstFrame | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Spatial and temporal scores, each float64 (L, N) in [0, 1], from one forward of the frozen transformer.

    latents (1, C, F, H, W), already noised; timestep (1,) in [0, 1000]; text (1, tokens, channels). `band` as for
    `band_tokens`. With `query_rows` >= S every row is used and the scores are exact. `expert` says whose transformer it
    is; `first` is the clip's first frame where it is given. Raises ValueError for fewer than two latent frames, where
    no head can be temporal.
    """
    _, p_h, p_w = transformer.config["patch_size"]
    frames, frame_tokens = latents.shape[2], (latents.shape[3] // p_h) * (latents.shape[4] // p_w)
    if frames < 2:
        raise ValueError(f"head classification was given {frames} latent frame; expected at least 2")
    rows = query_rows_of(frames * frame_tokens, query_rows)
    temporal = temporal_template(rows, frames, frame_tokens, band_tokens(frames, frame_tokens, band))
    keys = (spatial_template(rows, temporal, frames * frame_tokens), temporal)
    scores: list[torch.Tensor] = []

    def score(attention: WanAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        q, k = queries_and_keys(attention, args, kwargs)
        if criterion == "attention_mass":
            scores.append(_masses(q, k, rows, keys))
        else:
            v = attention.to_v(args[0]).unflatten(2, (attention.heads, -1))[0]
            scores.append(_agreements(q, k, v, rows, keys=keys, always=frame_tokens))

    with torch.no_grad(), _attention_hooks(transformer, score):
        predict_velocity(transformer, latents, timestep, text, expert=expert, first=first)
    stacked = torch.stack(scores).double().cpu().numpy()
    return stacked[:, 0], stacked[:, 1]


def self_attentions(transformer: WanTransformer3DModel) -> list[WanAttention]:
    """The self-attention of each layer, in order."""
    return [cast(WanAttention, block.get_submodule("attn1")) for block in transformer.blocks]  # torch says Module


def queries_and_keys(
    attention: WanAttention, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """q and k, each (S, N, D), after norm and RoPE, of a self-attention that is called with one sample.

    `args` and `kwargs` are those of the call, as a forward pre-hook receives them.
    """
    hidden, rotary = args[0], kwargs["rotary_emb"] if "rotary_emb" in kwargs else args[3]
    q = attention.norm_q(attention.to_q(hidden)).unflatten(2, (attention.heads, -1))
    k = attention.norm_k(attention.to_k(hidden)).unflatten(2, (attention.heads, -1))
    return rotate(q, *rotary)[0], rotate(k, *rotary)[0]


def query_rows_of(tokens: int, count: int) -> torch.Tensor:
    """Indices int64 of min(count, tokens) query tokens, one drawn from each of as many equal stretches."""
    if count >= tokens:
        return torch.arange(tokens)
    stretch = tokens / count
    offset = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ((torch.arange(count) + offset) * stretch).floor().long()


def band_tokens(frames: int, frame_tokens: int, band: float | None) -> int:
    """Width in tokens of a temporal diagonal, at least 1: the share `band` of a frame's tokens, 2 / F where it is None.

    With 2 / F, as in the authors' code, the spatial template is the query's own frame and half of each neighbour.
    Raises EffiVMTError where two templates of this width do not fit beside each other.
    """
    most = max(1, (frames * frame_tokens - 1) // (2 * (frames - 1)))
    if band is None:
        return min(most, max(1, 2 * frame_tokens // frames))
    width = max(1, round(band * frame_tokens))
    if width > most:
        raise EffiVMTError(
            f"heads.band is {band}, {width} of a frame's {frame_tokens} tokens, but with {frames} latent frames the "
            f"spatial and the temporal template share no token only up to {most}; leave heads.band out, or lower it"
        )
    return width


def temporal_template(rows: torch.Tensor, frames: int, frame_tokens: int, width: int) -> torch.Tensor:
    """Keys int64 (rows, (F - 1) * width): per query the `width` tokens nearest its position in every other frame."""
    frame, place = rows // frame_tokens, rows % frame_tokens
    others = torch.arange(frames - 1).expand(len(rows), -1)
    others = others + (others >= frame[:, None])
    start = (place - width // 2).clamp(0, frame_tokens - width)
    return (others[:, :, None] * frame_tokens + start[:, None, None] + torch.arange(width)).flatten(1)


def spatial_template(rows: torch.Tensor, temporal: torch.Tensor, tokens: int) -> torch.Tensor:
    """Keys int64 (rows, K), K as in the keys `temporal` (rows, K): per query the K nearest tokens of the flattened
    sequence of `tokens` tokens, less itself and its keys in `temporal`; of two that are equally near, the later.
    """
    places = torch.arange(tokens)
    distance = 2 * (places - rows[:, None]).abs() + (places < rows[:, None])
    distance.scatter_(1, rows[:, None], 2 * tokens).scatter_(1, temporal, 2 * tokens)
    return distance.topk(temporal.shape[1], largest=False).indices


@contextmanager
def _attention_hooks(transformer: WanTransformer3DModel, hook: Callable[..., None]) -> Iterator[None]:
    """Calls hook(attention, args, kwargs) before each self-attention of a forward, in order."""
    hooks = [attention.register_forward_pre_hook(hook, with_kwargs=True) for attention in self_attentions(transformer)]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _masses(
    q: torch.Tensor, k: torch.Tensor, rows: torch.Tensor, keys: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Mean attention mass under each template, float64 (2, N), over the query rows."""
    heads = q.shape[1]
    total = torch.zeros(2, heads, dtype=torch.float64, device=q.device)
    for places, logits in _logits(q, k, rows):
        attention = logits.softmax(-1)
        for i, template in enumerate(keys):
            under = template[places].to(q.device).expand(heads, -1, -1)
            total[i] += attention.gather(2, under).sum((1, 2), dtype=torch.float64)
    return total / len(rows)


def _agreements(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rows: torch.Tensor,
    *,
    keys: tuple[torch.Tensor, torch.Tensor],
    always: int,
) -> torch.Tensor:
    """1 / (1 + e) for each template, float64 (2, N): e is the squared error of the output of the query rows that see
    the template, themselves and the first `always` tokens alone, relative to the squared norm of the output.

    A head without any output agrees with everything: 1.
    """
    heads = q.shape[1]
    v = v.float().transpose(0, 1)
    norm = torch.zeros(heads, dtype=torch.float64, device=q.device)
    error = torch.zeros(2, heads, dtype=torch.float64, device=q.device)
    for places, logits in _logits(q, k, rows):
        output = logits.softmax(-1) @ v
        norm += output.square().sum((1, 2), dtype=torch.float64)
        for i, template in enumerate(keys):
            hidden = torch.ones(logits.shape[1:], dtype=torch.bool, device=q.device)
            for seen in (template[places], rows[places, None]):
                hidden.scatter_(1, seen.to(q.device), False)
            hidden[:, :always] = False
            part = logits.masked_fill(hidden, -torch.inf).softmax(-1) @ v
            error[i] += (part - output).square().sum((1, 2), dtype=torch.float64)
    return torch.where(norm + error > 0, norm / (norm + error), 1.0)


def _logits(q: torch.Tensor, k: torch.Tensor, rows: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """q k^T / sqrt(D), float32 (N, R, S), of the query rows in blocks of bounded memory, with slices of `rows`."""
    tokens, heads, head_width = q.shape
    block = max(1, _BLOCK_BYTES // (4 * tokens * heads))
    k = k.float().permute(1, 2, 0)
    for start in range(0, len(rows), block):
        places = slice(start, start + block)
        yield places, q[rows[places].to(q.device)].float().transpose(0, 1) @ k / head_width**0.5
