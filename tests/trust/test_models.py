"""Adapters and backbones of strangers: one line each, soon, in little memory."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import save_file
from trial import measured

from effivmt.config import BackboneParams
from effivmt.errors import AdapterError, BackboneError
from effivmt.method.adapter import load_adapter
from effivmt.method.adapter_manifest import read_facts
from effivmt.method.backbone_folder import find_backbone
from effivmt.method.heads import load_head_map
from effivmt.store.digests import sha256_file

SECONDS, BYTES = 5.0, 500 * 10**6


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter folder with a head map of 2 layers of 2 heads, and weights that a test writes."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    heads = {"layer": [0, 0, 1, 1], "head": [0, 1, 0, 1], "spatial_score": [0.5] * 4, "temporal_score": [0.5] * 4}
    parquet.write_table(pa.table(heads | {"branch": ["spatial"] * 4}), folder / "heads.parquet")
    for branch in ("spatial", "temporal"):
        save_file({}, folder / f"{branch}.safetensors")
    return folder


def sealed(folder: Path, **changes: object) -> Path:
    """Writes the adapter.json that belongs to the files of an adapter folder."""
    files = {path.name: sha256_file(path) for path in folder.iterdir() if path.is_file()}
    document = {"format": "effivmt-adapter", "version": 1, "files": files} | changes
    (folder / "adapter.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("tensor", "told"),
    [
        (torch.ones(2, 2, dtype=torch.int8), r"as I8 \(2, 2\); expected a matrix"),
        (torch.ones(2, 2, dtype=torch.bool), "as BOOL"),
        (torch.ones(2, 2, dtype=torch.float64), "as F64"),
        (torch.ones(2, 2, 2), r"as F32 \(2, 2, 2\)"),
        (torch.tensor(1.0), r"as F32 \(\)"),
        (torch.ones(0, 2), r"as F32 \(0, 2\)"),
    ],
)
def test_odd_weights_of_an_adapter(adapter, tensor, told):
    save_file({"transformer.blocks.0.attn1.to_q.lora_A.weight": tensor}, adapter / "temporal.safetensors")
    with pytest.raises(AdapterError, match=told):
        load_adapter(sealed(adapter))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: os.mkfifo(path),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("adapter.json"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text(" " * 3 * 2**20),
    ],
)
def test_an_odd_manifest_of_an_adapter(adapter: Path, make: Callable[[Path], object]) -> None:
    make(adapter / "adapter.json")
    with pytest.raises(AdapterError, match=r"adapter\.json is"):
        read_facts(adapter)


def test_a_manifest_of_another_shape(adapter):
    for changes in ({"files": {f"f{i}": "" for i in range(100)}}, {"backbone": {"id": 1, "digest": 2}}, {"files": []}):
        with pytest.raises(AdapterError):
            read_facts(sealed(adapter, **changes))


@pytest.mark.parametrize(
    "table",
    [
        {"layer": np.zeros(200_000, np.int32)},
        {"branch": pa.DictionaryArray.from_arrays(pa.array([0] * 4, pa.int32()), ["x" * 10**7])},
        {"branch": ["sideways"] * 4},
        {"layer": [0.5] * 4},
    ],
)
def test_a_head_map_is_bounded_by_its_metadata(tmp_path, table):
    rows = len(next(iter(table.values())))
    columns = {"layer": np.zeros(rows, np.int32), "head": np.arange(rows, dtype=np.int32)}
    columns |= {"spatial_score": np.zeros(rows), "temporal_score": np.zeros(rows), "branch": ["both"] * rows}
    parquet.write_table(pa.table(columns | table), tmp_path / "heads.parquet", compression="zstd")
    with pytest.raises(AdapterError, match=r"head map .* make or pull the adapter again"):
        load_head_map(tmp_path / "heads.parquet")


def edited(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def _without_weights(folder: Path) -> None:
    next((folder / "transformer").glob("*.safetensors")).unlink()


BACKBONES: dict[str, Callable[[Path], object]] = {
    "a list": lambda folder: (folder / "model_index.json").write_text("[1, 2]"),
    "deep": lambda folder: (folder / "model_index.json").write_text("[" * 100_000),
    "odd parts": lambda folder: edited(folder / "model_index.json", transformer_2="x"),
    "odd class": lambda folder: edited(folder / "model_index.json", _class_name=["WanPipeline"]),
    "no weights": _without_weights,
    "0 layers": lambda folder: edited(folder / "transformer" / "config.json", num_layers=0),
    "100,000 layers": lambda folder: edited(folder / "transformer" / "config.json", num_layers=100_000),
    "layers of text": lambda folder: edited(folder / "text_encoder" / "config.json", num_layers="2"),
    "many layers of text": lambda folder: edited(folder / "text_encoder" / "config.json", num_hidden_layers=10**5),
    "wide vae": lambda folder: edited(folder / "vae" / "config.json", base_dim=10**9),
    "deep vae": lambda folder: edited(folder / "vae" / "config.json", dim_mult=[1] * 1000),
    "long rope": lambda folder: edited(folder / "transformer" / "config.json", rope_max_seq_len=10**6),
    "long scheduler": lambda folder: edited(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=10**9),
    "config of a list": lambda folder: (folder / "vae" / "config.json").write_text("[]"),
}


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_backbone_of_a_stranger(backbone_folder, tmp_path, kind):
    folder = Path(shutil.copytree(backbone_folder, tmp_path / "backbone"))
    BACKBONES[kind](folder)
    started = time.process_time()
    with pytest.raises(BackboneError, match=f"backbone {folder}") as caught:
        find_backbone(BackboneParams(path=str(folder)))
    assert time.process_time() - started < SECONDS and "\n" not in str(caught.value)


def test_a_hostile_backbone_costs_little(backbone_folder, tmp_path):
    folder = Path(shutil.copytree(backbone_folder, tmp_path / "backbone"))
    edited(folder / "transformer" / "config.json", num_layers=100_000)
    arguments = ("transfer", "a.mp4", "--caption", "a", "--prompt", "b", "--store", tmp_path / "store")
    ended = measured(tmp_path, *arguments, "--set", f"backbone.path={folder}")
    assert ended.code == 1 and "num_layers" in ended.fault
    assert ended.seconds < SECONDS and ended.peak < BYTES
