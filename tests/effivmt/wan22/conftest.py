"""A random backbone that is laid out as Wan 2.2 TI2V-5B, and the params of a transfer on either layout."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel

from effivmt.catalog import Clip
from effivmt.config import Params

TUNING = {"rank": 2, "steps": 3, "batch": 2, "save_every": 1, "learning_rate": 0.05}


@pytest.fixture(scope="session")
def ti2v_folder(backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random autoencoder that packs 16 x 16 pixels, with residual blocks, and a transformer with expand_timesteps."""
    torch.manual_seed(0)
    z_dim = 6
    vae = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=8,
        z_dim=z_dim,
        dim_mult=[1, 1, 1, 1],
        temperal_downsample=[False, True, True],
        num_res_blocks=1,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        latents_mean=[0.1] * z_dim,
        latents_std=[0.9] * z_dim,
    )
    transformer = WanTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=z_dim,
        out_channels=z_dim,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=64,
    )
    stock = WanPipeline.from_pretrained(backbone_folder, vae=vae, transformer=transformer)
    folder = tmp_path_factory.mktemp("models") / "ti2v-random"
    WanPipeline(
        stock.tokenizer, stock.text_encoder, vae, stock.scheduler, transformer, expand_timesteps=True
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(a14b_folder: Path, tmp_path: Path) -> Path:
    """A copy of the layout of A14B to change."""
    return Path(shutil.copytree(a14b_folder, tmp_path / "copy"))


@pytest.fixture(scope="session")
def a14b_params(a14b_folder: Path, scorer_folder: Path) -> Params:
    """Params of a transfer that takes seconds; the first of two sampling steps is above the boundary."""
    return _params(a14b_folder, scorer_folder, side=32)


@pytest.fixture(scope="session")
def ti2v_params(ti2v_folder: Path, scorer_folder: Path) -> Params:
    """Params of a transfer that takes seconds."""
    return _params(ti2v_folder, scorer_folder, side=64)


@pytest.fixture(scope="session")
def zigzag(sample_video: Path) -> Clip:
    """A clip with one prompt."""
    prompts = ("a green circle on a gray background",)
    return Clip(clip="zigzag", video=sample_video, caption="a red square on a navy background", prompts=prompts)


def _params(folder: Path, scorer: Path, *, side: int) -> Params:
    return Params.model_validate(
        {
            "backbone": {"path": str(folder), "max_sequence_length": 16},
            "ingest": {"num_frames": 17, "height": side, "width": side, "fps": 8},
            "sampling": {"mode": "latent", "frames": 9, "phases": 2},
            "heads": {"noise_levels": [0.5, 0.9], "alpha": 1.0},
            "spatial": TUNING,
            "temporal": TUNING,
            "render": {"steps": 2},
            "evaluate": {"scorer": str(scorer)},
        }
    )
