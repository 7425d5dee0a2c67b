"""The parts of a backbone without data, made from its configs alone, as `Backbone` would hold them."""

from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from effivmt.method.low_memory import store_in_float8
from effivmt.planning.counting import META


def transformer_without_data(
    folder: Path, dtype: torch.dtype, *, float8: bool = False, layers: int | None = None
) -> WanTransformer3DModel:
    """The transformer of a backbone's folder, or its first layers; `from_pretrained` keeps some modules in float32."""
    config = WanTransformer3DModel.load_config(folder / "transformer")
    with META:
        transformer = WanTransformer3DModel.from_config(config if layers is None else {**config, "num_layers": layers})
    transformer.eval().requires_grad_(False)
    kept = set(transformer._keep_in_fp32_modules or ())
    for name, parameter in transformer.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if kept & set(name.split(".")) else dtype)
    if float8:
        store_in_float8(transformer)
    return transformer


def autoencoder_without_data(folder: Path) -> AutoencoderKLWan:
    """The autoencoder, in float32."""
    with META:
        vae = AutoencoderKLWan.from_config(AutoencoderKLWan.load_config(folder / "vae"))
    return vae.eval().requires_grad_(False)


def text_encoder_without_data(folder: Path, dtype: torch.dtype) -> UMT5EncoderModel:
    """The text encoder."""
    with META:
        encoder = UMT5EncoderModel(UMT5Config.from_pretrained(folder / "text_encoder", local_files_only=True))
    nn.Module.to(encoder, dtype)
    return encoder.eval().requires_grad_(False)


def image_encoder_without_data(folder: Path) -> CLIPVisionModel:
    """The encoder of images, in float32."""
    with META:
        encoder = CLIPVisionModel(CLIPVisionConfig.from_pretrained(folder / "image_encoder", local_files_only=True))
    return encoder.eval().requires_grad_(False)
