"""Stage 1b: the dual path. The heads of each self-attention are of two kinds, and a LoRA of one branch changes the
channels of its own kind alone (paper, section 3.3).

While it lasts, each block of the transformer runs as a `TunedBlock`. The frozen weights stay where they are: there is
no second copy of any, and afterwards nothing has to be put back together.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel, WanTransformerBlock

from effivmt.errors import EffiVMTError
from effivmt.method.branch_lora import HeadChannels, empty_lora
from effivmt.method.heads import BRANCHES, HeadMap
from effivmt.method.tuned_block import TunedBlock


@contextmanager
def dual_path(transformer: WanTransformer3DModel, heads: HeadMap) -> Iterator[WanTransformer3DModel]:
    """Runs the blocks of `transformer` by the head map while the context lasts; afterwards it is stock again.

    Raises ValueError where the head map has another number of layers or heads than the transformer.
    """
    shape = (transformer.config["num_layers"], transformer.config["num_attention_heads"])
    if heads.is_temporal.shape != shape:
        raise ValueError(
            f"the head map is of {heads.is_temporal.shape[0]} layers x {heads.is_temporal.shape[1]} heads but the "
            f"transformer has {shape[0]} x {shape[1]}; classify its heads again"
        )
    blocks = [cast(WanTransformerBlock, block) for block in transformer.blocks]  # torch says Module
    try:
        for block, is_temporal in zip(blocks, heads.is_temporal, strict=True):
            vars(block)["forward"] = TunedBlock(block, is_temporal if heads.decoupled else None)
        yield transformer
    finally:
        for block in blocks:
            vars(block).pop("forward", None)


def add_lora(
    transformer: WanTransformer3DModel, branch: str | None, rank: int, random: torch.Generator
) -> dict[str, torch.Tensor]:
    """Adds a LoRA of scale 1 to one branch of a transformer in the dual path; returns its float32 weights by name.

    `branch` None adds it to all heads of one whose branches are not decoupled. A weight is named
    `blocks.0.attn1.to_q.spatial.lora_A`, without a branch `blocks.0.attn1.to_q.lora_A`. A is drawn from `random` as
    peft draws it (Kaiming uniform) and B is zero, so the output does not change yet. Raises EffiVMTError when no head
    of any layer belongs to the branch.
    """
    config = transformer.config
    width = config["num_attention_heads"] * config["attention_head_dim"]
    weights: dict[str, torch.Tensor] = {}
    for layer, tuned in enumerate(tuned_blocks(transformer)):
        own = None
        if branch is not None:
            assert branch in BRANCHES and tuned.is_temporal is not None
            own = torch.from_numpy(np.flatnonzero(tuned.is_temporal == (branch == "temporal"))).to(transformer.device)
        if own is None or len(own):
            heads = HeadChannels(own, config["num_attention_heads"])
            tuned.lora = empty_lora(width, rank, heads, transformer.device)
            for name, weight in tuned.lora.weights.items():
                projection, side = name.rsplit(".", 1)
                path = projection if branch is None else f"{projection}.{branch}"
                weights[f"blocks.{layer}.attn1.{path}.{side}"] = weight
    if not weights:
        raise EffiVMTError(
            f"no head of this backbone is {branch} on this clip, so there is nothing to tune; change heads.alpha "
            "(a larger alpha makes more heads temporal) or heads.criterion"
        )
    draw_weights(weights, random)
    return weights


def lora_parameters(transformer: WanTransformer3DModel) -> list[torch.Tensor]:
    """The leaves of the LoRA that `add_lora` added, layer by layer."""
    loras = (tuned.lora for tuned in tuned_blocks(transformer))
    return [parameter for lora in loras if lora is not None for parameter in lora.parameters]


@torch.no_grad()
def draw_weights(weights: Mapping[str, torch.Tensor], random: torch.Generator) -> None:
    """Gives LoRA weights their values at the start: A drawn from `random`, B zero."""
    for name, weight in weights.items():
        if name.endswith("lora_A"):
            bound = 1 / math.sqrt(weight.shape[1])
            weight.copy_((torch.rand(weight.shape, generator=random) * 2 - 1) * bound)
        else:
            weight.zero_()


@torch.no_grad()
def hold_text(transformer: WanTransformer3DModel, caption: torch.Tensor, image: torch.Tensor | None = None) -> None:
    """Computes what the blocks need of a caption and of an image's embedding, each (1, tokens, channels), once.

    Further calls do not read their text, and are given no image.
    """
    text = transformer.condition_embedder.text_embedder(caption)
    if image is not None:
        image = transformer.condition_embedder.get_submodule("image_embedder")(image)
    for tuned in tuned_blocks(transformer):
        tuned.hold(text, image)


def tuned_blocks(transformer: WanTransformer3DModel) -> list[TunedBlock]:
    """The blocks of a transformer in the dual path."""
    return [cast(TunedBlock, block.forward) for block in transformer.blocks]


def channels_of(is_temporal: np.ndarray, head_width: int) -> dict[str, torch.Tensor]:
    """Channel indices int64 of each branch in the stock order, for one layer's heads bool (N,)."""
    kind = torch.from_numpy(np.repeat(is_temporal, head_width))
    return {"spatial": (~kind).nonzero().flatten(), "temporal": kind.nonzero().flatten()}
