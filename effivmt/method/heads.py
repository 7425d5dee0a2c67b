"""Stage 1: which attention heads are spatial and which temporal (paper, section 3.2, equation 3).

The attention map of a head, A = softmax(q k^T / sqrt(D)) over all S = F h w tokens, is compared with two templates of
equal area that share no token. The temporal one lies along the diagonals parallel to the main one: for each query the
tokens around the same position in every other frame. The spatial one lies along the main diagonal: for each query the
nearest other tokens of the flattened sequence, that is, of the same or a neighbouring frame. The query token itself
belongs to neither. A head's score is the attention mass under a template. No S x S map is ever built: only the rows of
some query tokens are, in blocks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformer3DModel

from effivmt.errors import AdapterError, EffiVMTError
from effivmt.method.experts import ONLY, Expert
from effivmt.method.prediction import FirstFrame, predict_velocity
from effivmt.method.rope import rotate
from effivmt.untrusted import open_regular, unpacked_bytes

BRANCHES = ("spatial", "temporal")
BOTH = "both"
"""Branch of every head in a head map whose branches are not decoupled."""
Split = Literal["classified", "random", "swapped", "none"]
_MOST_HEADS = 100_000
"""Rows that a head map may have; Wan 14B has 1600 heads."""
_MOST_BYTES = 16 * 2**20
"""Bytes that its columns may have; 100,000 rows have 4 MiB."""
_BLOCK_BYTES = 256 * 2**20
_COLUMNS = {
    "layer": pa.int32(),
    "head": pa.int32(),
    "spatial_score": pa.float64(),
    "temporal_score": pa.float64(),
    "branch": pa.string(),
}


@dataclass(frozen=True)
class HeadMap:
    """spatial and temporal scores float64 (L, N) in [0, 1], and is_temporal bool (L, N).

    Where the branches are not `decoupled`, each has all heads and is_temporal means nothing.
    """

    spatial: np.ndarray
    temporal: np.ndarray
    is_temporal: np.ndarray
    decoupled: bool = True

    @property
    def branch(self) -> np.ndarray:
        """str (L, N): "spatial" or "temporal"; "both" everywhere where the branches are not decoupled."""
        if not self.decoupled:
            return np.full(self.is_temporal.shape, BOTH)
        return np.where(self.is_temporal, "temporal", "spatial")


def label_heads(spatial: np.ndarray, temporal: np.ndarray, alpha: float) -> HeadMap:
    """The paper's rule: a head is temporal iff S_spatial < alpha * S_temporal; scores (L, N)."""
    return HeadMap(spatial, temporal, spatial < alpha * temporal)


def split_heads(heads: HeadMap, split: Split, random: torch.Generator) -> HeadMap:
    """The head map that tuning uses: the classified one, or an ablation of it.

    random: each layer keeps its number of temporal heads, but which ones they are is drawn from `random`. swapped:
    each head goes to the other branch. none: no decoupling, both branches cover all heads.
    """
    if split == "swapped":
        return replace(heads, is_temporal=~heads.is_temporal)
    if split == "random":
        drawn = [layer[torch.randperm(len(layer), generator=random).numpy()] for layer in heads.is_temporal]
        return replace(heads, is_temporal=np.stack(drawn))
    if split == "none":
        return replace(heads, is_temporal=np.zeros_like(heads.is_temporal), decoupled=False)
    return heads


def attention_scores(
    transformer: WanTransformer3DModel,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    text: torch.Tensor,
    *,
    band: float | None,
    query_rows: int,
    expert: Expert = ONLY,
    first: FirstFrame | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Spatial and temporal scores, each float64 (L, N), from one forward of the frozen transformer.

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
    with torch.no_grad(), _attention_hooks(transformer, lambda q, k: scores.append(_masses(q, k, rows, keys))):
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


def save_head_map(path: Path, heads: HeadMap) -> None:
    """Writes heads.parquet: layer, head, spatial score, temporal score, branch."""
    layer, head = np.indices(heads.is_temporal.shape).reshape(2, -1)
    values = (layer, head, heads.spatial.ravel(), heads.temporal.ravel(), heads.branch.ravel().tolist())
    table = pa.table(dict(zip(_COLUMNS, values, strict=True)), schema=pa.schema(_COLUMNS))
    pq.write_table(table, path, compression="NONE")


def load_head_map(path: Path) -> HeadMap:
    """Reads heads.parquet; AdapterError unless it has its columns and one row for each head of each layer.

    Rows and bytes are those of the file's own metadata, checked before any row is read.
    """
    try:
        with open_regular(path) as file:
            table = _read_bounded(file)
        columns = {name: table[name].cast(kind).to_numpy() for name, kind in _COLUMNS.items()}
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise AdapterError(f"head map {path} cannot be read ({reason}); make or pull the adapter again") from error
    places = np.stack([columns["layer"], columns["head"]])
    order = np.lexsort(places[::-1])
    shape = tuple(len(np.unique(axis)) for axis in places)
    whole = len(order) > 0 and np.array_equal(places[:, order], np.indices(shape).reshape(2, -1))
    branches = set(columns["branch"])
    if not whole or (branches - set(BRANCHES) and branches != {BOTH}):
        raise AdapterError(
            f"head map {path} has {table.num_rows} rows; expected one, {' or '.join(BRANCHES)} (or {BOTH} in all), for "
            "each head of each layer; make or pull the adapter again"
        )
    grid = {name: values[order].reshape(shape) for name, values in columns.items()}
    return HeadMap(grid["spatial_score"], grid["temporal_score"], grid["branch"] == "temporal", branches != {BOTH})


def _read_bounded(source: BinaryIO) -> pa.Table:
    """The columns of a head map; ValueError where it has too many rows or bytes, or a branch of another name."""
    file = pq.ParquetFile(source, read_dictionary=["branch"])  # a long text in every row costs nothing until it is cast
    facts = file.metadata
    size = unpacked_bytes(facts)
    if facts.num_rows > _MOST_HEADS or size > _MOST_BYTES:
        raise ValueError(f"it has {facts.num_rows} rows and {size} bytes, expected at most {_MOST_HEADS} rows")
    table = file.read(columns=list(_COLUMNS))
    for chunk in table["branch"].chunks:
        if pa.types.is_dictionary(chunk.type) and set(chunk.dictionary.to_pylist()) - {*BRANCHES, BOTH, None}:
            raise ValueError("it has a branch of another name")
    return table


@contextmanager
def _attention_hooks(
    transformer: WanTransformer3DModel, callback: Callable[[torch.Tensor, torch.Tensor], None]
) -> Iterator[None]:
    """Calls callback(q, k), each (S, N, D) after norm and RoPE, at each self-attention of a forward, in order."""

    def before(attention: WanAttention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        callback(*queries_and_keys(attention, args, kwargs))

    hooks = [
        attention.register_forward_pre_hook(before, with_kwargs=True) for attention in self_attentions(transformer)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _masses(
    q: torch.Tensor, k: torch.Tensor, rows: torch.Tensor, keys: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Mean attention mass under each template, float32 (2, N), over the query rows, in blocks of bounded memory."""
    tokens, heads, head_width = q.shape
    block = max(1, _BLOCK_BYTES // (4 * tokens * heads))
    k = k.float().permute(1, 2, 0)
    total = torch.zeros(2, heads, dtype=torch.float64, device=q.device)
    for start in range(0, len(rows), block):
        part = rows[start : start + block].to(q.device)
        attention = (q[part].float().transpose(0, 1) @ k / head_width**0.5).softmax(-1)
        for i, template in enumerate(keys):
            under = template[start : start + block].to(q.device).expand(heads, -1, -1)
            total[i] += attention.gather(2, under).sum((1, 2), dtype=torch.float64)
    return total / len(rows)
