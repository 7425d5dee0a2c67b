"""Adapter folders with random weights, for two head maps, and copies to damage."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from adapting import MAPS, RANKS, Tuned

from effivmt.method.adapter import save_adapter, to_stock_layout
from effivmt.method.dual_path import add_lora, dual_path
from effivmt.method.heads import label_heads


@pytest.fixture(scope="module", params=list(MAPS))
def tuned(request, backbone, tmp_path_factory) -> Tuned:
    """LoRAs of random weights, as if tuned, written by the code under test."""
    scores = np.where(MAPS[request.param], [[[0.1]], [[0.4]]], [[[0.5]], [[0.2]]])
    heads = label_heads(*scores, 1.25)
    assert (heads.is_temporal == MAPS[request.param]).all()
    split, random = {}, torch.Generator().manual_seed(0)
    for branch, rank in RANKS.items():
        transformer = copy.deepcopy(backbone.transformer)
        with dual_path(transformer, heads):
            weights = add_lora(transformer, branch, rank, random)
            split[branch] = {name: torch.randn(w.shape, generator=random) * 0.15 for name, w in weights.items()}
    stock = {branch: to_stock_layout(weights, heads) for branch, weights in split.items()}
    folder = tmp_path_factory.mktemp("adapter") / "made"
    facts = {"backbone": {"id": backbone.id, "digest": backbone.digest}, "clip": {"caption": "a clip"}}
    save_adapter(folder, stock["spatial"], stock["temporal"], heads, facts=facts)
    return Tuned(folder, heads, split)


@pytest.fixture
def broken(tuned, tmp_path) -> Path:
    """A copy of the folder to damage."""
    return Path(shutil.copytree(tuned.folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def prompts(backbone) -> list[torch.Tensor]:
    return backbone.encode_texts(["a red square", "blur"])
