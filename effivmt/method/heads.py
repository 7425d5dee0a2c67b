"""Stage 1: which attention heads are spatial and which temporal (paper, section 3.2, equation 3).

A head map is made of the scores of `effivmt.method.head_scores`, and kept as heads.parquet.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from effivmt.errors import AdapterError
from effivmt.untrusted import open_regular, unpacked_bytes

BRANCHES = ("spatial", "temporal")
BOTH = "both"
"""Branch of every head in a head map whose branches are not decoupled."""
Split = Literal["classified", "random", "swapped", "none"]
_MOST_HEADS = 100_000
"""Rows that a head map may have; Wan 14B has 1600 heads."""
_MOST_BYTES = 16 * 2**20
"""Bytes that its columns may have; 100,000 rows have 4 MiB."""
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
    """The paper's rule: a head is temporal iff S_spatial < alpha * S_temporal; scores (L, N).

    With alpha 1 it is Sparse VideoGen's for scores of the criterion output_error.
    """
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
