"""The stages' own code, run on models without data and counted.

Half of the heads are taken to be temporal, as nothing is classified yet.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import CLIPVisionModel

from effivmt.config import LoraParams, Params
from effivmt.method.adapter import fused
from effivmt.method.branch_lora import PROJECTIONS
from effivmt.method.experts import Expert
from effivmt.method.head_scores import attention_scores
from effivmt.method.heads import HeadMap
from effivmt.method.low_memory import activations_on_host
from effivmt.method.memory_choices import MemoryChoices
from effivmt.method.prediction import FirstFrame, predict_velocity
from effivmt.method.tuning import tune_spatial, tune_temporal
from effivmt.planning.counting import META, Counter, counted

Shape = tuple[int, ...]
Tuning = TypeVar("Tuning", bound=LoraParams)
COUNTED_STEPS = 2
"""Steps of a tuning: the optimizer's state is made in the first; the second is like all others."""


_IMAGE_TOKENS = 257
"""Of the image encoder of Wan 2.1 I2V, CLIP ViT-H/14 at 224 x 224 pixels."""


class _CountedError(Exception):
    """Ends a tuning whose steps are counted."""


def count_heads(
    transformer: WanTransformer3DModel, params: Params, latents: Shape, *, choices: MemoryChoices, expert: Expert
) -> Counter:
    """One noise level of head classification on latents of this shape (1, C, F, h, w)."""
    heads = params.heads
    with resident(transformer, choices) as counter:
        video, text = torch.empty(latents, device=META, dtype=transformer.dtype), _text(transformer, params)
        time = torch.zeros(1, device=META)
        attention_scores(
            transformer,
            video,
            time,
            text,
            band=heads.band,
            query_rows=heads.query_rows,
            criterion=heads.criterion,
            expert=expert,
            first=_first(transformer, latents),
        )
    return counter


def count_spatial(
    transformer: WanTransformer3DModel, params: Params, latents: Shape, *, choices: MemoryChoices, expert: Expert
) -> Counter:
    """`COUNTED_STEPS` of stage 2 on single frames of latents of this shape (M, C, 1, h, w)."""
    settings = _for_counting(params.spatial, checkpointing=choices.spatial_checkpointing)
    with TemporaryDirectory() as folder, counted([transformer]) as counter, suppress(_CountedError):
        tune_spatial(
            transformer,
            half_temporal(transformer),
            torch.zeros(()).expand(latents),
            _text(transformer, params),
            params=settings,
            seed=0,
            clip="",
            checkpoint=Path(folder) / "none",
            progress=_stop,
            expert=expert,
        )
    return counter


def count_temporal(
    transformer: WanTransformer3DModel, params: Params, latents: Shape, *, choices: MemoryChoices, expert: Expert
) -> Counter:
    """`COUNTED_STEPS` of stage 3 beside the appearance LoRA, on latents as `tune_temporal` takes them."""
    settings = _for_counting(params.temporal, checkpointing=choices.temporal_checkpointing)
    looks = {"spatial": (stock_lora(transformer, params.spatial.rank), 1.0)} if params.spatial.steps else {}
    with ExitStack() as stack:
        folder, counter = stack.enter_context(TemporaryDirectory()), stack.enter_context(counted([transformer]))
        stack.enter_context(suppress(_CountedError))
        stack.enter_context(fused(transformer, looks))
        stack.enter_context(activations_on_host(META, needed=choices.activations_on_host))
        tune_temporal(
            transformer,
            half_temporal(transformer),
            torch.zeros(()).expand(latents),
            _text(transformer, params),
            params=settings,
            sampling=params.sampling,
            num_frames=params.ingest.num_frames,
            first=_first(transformer, latents, waits=True),
            seed=0,
            clip="",
            checkpoint=Path(folder) / "none",
            progress=_stop,
            expert=expert,
        )
    return counter


def count_forward(
    transformer: WanTransformer3DModel, params: Params, latents: Shape, *, choices: MemoryChoices, expert: Expert
) -> Counter:
    """A pass of rendering, with both LoRAs, over latents of this shape (1, C, F, h, w)."""
    strengths = {"spatial": params.render.appearance_strength, "temporal": params.render.motion_strength}
    loras = {
        name: (stock_lora(transformer, getattr(params, name).rank), strength) for name, strength in strengths.items()
    }
    with torch.no_grad(), resident(transformer, choices) as counter, fused(transformer, loras):
        video, text = torch.empty(latents, device=META, dtype=transformer.dtype), _text(transformer, params)
        predict_velocity(
            transformer, video, torch.zeros(1, device=META), text, expert=expert, first=_first(transformer, latents)
        )
    return counter


def count_decoding(vae: AutoencoderKLWan, latents: Shape) -> Counter:
    """The decoding of a video from latents of this shape (1, C, F, h, w)."""
    with torch.no_grad(), counted([vae]) as counter:
        vae.decode(torch.empty(latents, device=META), return_dict=False)
    return counter


def count_encoding(vae: AutoencoderKLWan, video: Shape) -> Counter:
    """The encoding of a video of this shape (1, 3, T, H, W)."""
    with torch.no_grad(), counted([vae]) as counter:
        vae.encode(torch.empty(video, device=META)).latent_dist.mode()
    return counter


def count_embedding(encoder: CLIPVisionModel) -> Counter:
    """The embedding of an image."""
    side = encoder.config.image_size
    assert isinstance(side, int)  # the models that Wan has take squares
    with torch.no_grad(), counted([encoder]) as counter:
        encoder(torch.empty(1, 3, side, side, device=META), output_hidden_states=True)
    return counter


def half_temporal(transformer: WanTransformer3DModel) -> HeadMap:
    """A head map in which every other head is temporal."""
    layers, heads = transformer.config["num_layers"], transformer.config["num_attention_heads"]
    scores = np.zeros((layers, heads))
    return HeadMap(scores, scores, np.arange(heads)[None].repeat(layers, 0) % 2 == 1)


def stock_lora(transformer: WanTransformer3DModel, rank: int) -> Mapping[str, torch.Tensor]:
    """A LoRA without data on all heads, in the stock layout, float32."""
    width: int = transformer.config["num_attention_heads"] * transformer.config["attention_head_dim"]
    shapes = {"lora_A": (rank, width), "lora_B": (width, rank)}
    return {
        f"transformer.blocks.{layer}.attn1.{projection}.{side}.weight": torch.empty(shape, device=META)
        for layer in range(transformer.config["num_layers"])
        for projection in PROJECTIONS
        for side, shape in shapes.items()
    }


def resident(transformer: WanTransformer3DModel, choices: MemoryChoices) -> AbstractContextManager[Counter]:
    """Counts beside the whole transformer, or beside what is on the GPU of an offloaded one: two of its blocks."""
    if not choices.offloaded_blocks:
        return counted([transformer])
    outside = [module for name, module in transformer.named_children() if name != "blocks"]
    blocks = list(transformer.blocks)
    return counted([*outside, *blocks[:2]], elsewhere=blocks[2:])


def _first(transformer: WanTransformer3DModel, latents: Shape, *, waits: bool = False) -> FirstFrame | None:
    """The first frame of latents of this shape, for a transformer that takes one beside the noise; else None.

    waits: it is on the processor, where the batches of a tuning are drawn.
    """
    config = transformer.config
    if (more := config["in_channels"] - config["out_channels"]) == 0:
        return None
    embedding = None
    if config["image_dim"] is not None:
        embedding = torch.empty(1, _IMAGE_TOKENS, config["image_dim"], device=META, dtype=transformer.dtype)
    shape = (1, more, *latents[2:])
    given = torch.zeros(()).expand(shape) if waits else torch.empty(shape, device=META)
    return FirstFrame(given, clean=False, embedding=embedding)


def _text(transformer: WanTransformer3DModel, params: Params) -> torch.Tensor:
    """A text embedding without data (1, tokens, channels)."""
    shape = (1, params.backbone.max_sequence_length, transformer.config["text_dim"])
    return torch.empty(shape, device=META, dtype=transformer.dtype)


def _for_counting(params: Tuning, *, checkpointing: bool) -> Tuning:
    """Params of a tuning that takes the counted steps and saves nothing."""
    steps = COUNTED_STEPS + 1
    on = params.gradient_checkpointing or checkpointing
    return params.model_copy(update={"steps": steps, "save_every": 2 * steps, "gradient_checkpointing": on})


def _stop(done: int, _: int) -> None:
    if done == COUNTED_STEPS:
        raise _CountedError
