"""Wan 2.1 and 2.2 by their configs, as they are on the hub, and transformers of these shapes with random weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformer3DModel

from effivmt.planning.models import autoencoder_without_data, transformer_without_data

Config = Mapping[str, Any]
TRANSFORMER: Config = {
    "_class_name": "WanTransformer3DModel",
    "patch_size": [1, 2, 2],
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 1024,
    "attention_head_dim": 128,
}
VAE: Config = {
    "_class_name": "AutoencoderKLWan",
    "base_dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}
TEXT_ENCODER: Config = {
    "architectures": ["UMT5EncoderModel"],
    "model_type": "umt5",
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
WAN_1_3B: Config = {"num_layers": 30, "num_attention_heads": 12, "ffn_dim": 8960}
WAN_14B: Config = {"num_layers": 40, "num_attention_heads": 40, "ffn_dim": 13824}
WAN_14B_I2V: Config = {**WAN_14B, "in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}
WAN_TI2V_5B: Config = {
    "num_layers": 30,
    "num_attention_heads": 24,
    "ffn_dim": 14336,
    "in_channels": 48,
    "out_channels": 48,
}
TI2V_VAE: Config = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
IMAGE_ENCODER: Config = {
    "architectures": ["CLIPVisionModel"],
    "model_type": "clip_vision_model",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "projection_dim": 1024,
}
"""CLIP ViT-H/14, which Wan 2.1 I2V reads images by."""
MIDDLE: Config = {
    "num_layers": 8,
    "num_attention_heads": 12,
    "attention_head_dim": 64,
    "ffn_dim": 3072,
    "text_dim": 512,
}
SMALL: Config = {
    "num_layers": 3,
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "ffn_dim": 256,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 64,
}
"""The shapes of `--small`; `SMALL_VAE` and `SMALL_TEXT` go with them."""
SMALL_VAE: Config = {
    "base_dim": 8,
    "z_dim": 4,
    "num_res_blocks": 1,
    "latents_mean": [0.0] * 4,
    "latents_std": [1.0] * 4,
}
SMALL_TEXT: Config = {"vocab_size": 512, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}


def write_configs(folder: Path, size: Config, vae: Config | None = None, text: Config | None = None) -> Path:
    """Writes the configs of a backbone's parts with weights into a new folder; returns it.

    A transformer that reads images has their encoder beside it.
    """
    parts = {"transformer": {**TRANSFORMER, **size}, "vae": {**VAE, **(vae or {})}}
    if "image_dim" in size:
        parts["image_encoder"] = dict(IMAGE_ENCODER)
    parts["text_encoder"] = {**TEXT_ENCODER, **(text or {})}
    for name, config in parts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def random_transformer(
    folder: Path, dtype: str, device: torch.device | str, *, float8: bool = False
) -> WanTransformer3DModel:
    """The transformer of a folder's configs with random weights, filled one by one, so that no other copy is held."""
    transformer = transformer_without_data(folder, getattr(torch, dtype), float8=float8)
    random = torch.Generator(device).manual_seed(0)
    for name, meta in list(transformer.named_parameters()):
        weight = torch.empty(meta.shape, device=device).normal_(0, 0.02, generator=random)
        if name.rpartition(".")[0].endswith(("norm_q", "norm_k", "norm2")) and name.endswith("weight"):
            weight.fill_(1.0)
        path, _, leaf = name.rpartition(".")
        setattr(transformer.get_submodule(path), leaf, torch.nn.Parameter(weight.to(meta.dtype), requires_grad=False))
    config = transformer.config
    transformer.rope = WanRotaryPosEmbed(config["attention_head_dim"], config["patch_size"], config["rope_max_seq_len"])
    transformer.rope.to(device)
    return transformer


def random_autoencoder(folder: Path, device: torch.device | str) -> AutoencoderKLWan:
    """The autoencoder of a folder's configs with random weights."""
    vae = autoencoder_without_data(folder).to_empty(device=device)
    random = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.normal_(0, 0.02, generator=random)
    return vae


def weak_lora(transformer: WanTransformer3DModel, rank: int) -> dict[str, torch.Tensor]:
    """A LoRA on all heads in the stock layout, of small random weights on the processor."""
    config, random = transformer.config, torch.Generator().manual_seed(0)
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return {
        f"transformer.blocks.{layer}.attn1.{name}.{side}.weight": torch.randn(shape, generator=random) * 0.01
        for layer in range(config["num_layers"])
        for name in ("to_q", "to_k", "to_v", "to_out.0")
        for side, shape in (("lora_A", (rank, width)), ("lora_B", (width, rank)))
    }
