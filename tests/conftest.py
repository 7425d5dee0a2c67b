"""Tiny real models, built once a test session: a random WanPipeline folder and a random CLIPModel folder."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import hubserver
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    UMT5Config,
    UMT5EncoderModel,
)

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.media.video import write_video
from effivmt.method.backbone import Backbone
from effivmt.pipeline.workspace import Workspace
from effivmt.pretrain.text import make_tokenizer
from effivmt.store.store import Store
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import held_out
from effivmt.world.scenes import object_clip

PARAMS = {
    "ingest": {"num_frames": 17, "height": 32, "width": 32, "fps": 8},
    "sampling": {"mode": "latent", "frames": 9, "phases": 2},
    "heads": {"noise_levels": [0.5], "alpha": 1.0},
    "spatial": {"rank": 2, "steps": 3, "batch": 2, "save_every": 1},
    "temporal": {"rank": 2, "steps": 3, "batch": 2, "save_every": 1},
    "render": {"steps": 2},
}


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WanPipeline folder of random weights: 2 layers of 4 heads, 12 channels each."""
    return save_random_pipeline(tmp_path_factory.mktemp("models") / "wan-random")


@pytest.fixture(scope="session")
def a14b_folder(backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random backbone with a second transformer, of other weights, laid out as Wan 2.2 A14B."""
    folder = Path(shutil.copytree(backbone_folder, tmp_path_factory.mktemp("models") / "a14b-random"))
    shutil.copytree(folder / "transformer", folder / "transformer_2")
    (path,) = (folder / "transformer_2").glob("*.safetensors")
    random = torch.Generator().manual_seed(1)
    weights = {
        name: weight + 0.1 * torch.randn(weight.shape, generator=random) for name, weight in load_file(path).items()
    }
    save_file(weights, path, metadata={"format": "pt"})
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"transformer_2": index["transformer"], "boundary_ratio": 0.875}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="session")
def scorer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIPModel folder of random weights."""
    folder = tmp_path_factory.mktemp("models") / "clip-random"
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = make_tokenizer()
    text = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=32, eos_token_id=1, **size)
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **size)
    CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    ).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size=square, crop_size=square).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hubserver.Hub]:
    """A hub on loopback without any models; its cache is empty."""
    with hubserver.serve(tmp_path / "hub cache", monkeypatch) as served:
        yield served


@pytest.fixture(scope="session")
def backbone(backbone_folder: Path) -> Backbone:
    """The random backbone, loaded; tests must leave its weights as they are."""
    return Backbone(Params().backbone.model_copy(update={"path": str(backbone_folder), "max_sequence_length": 16}))


@pytest.fixture
def params(backbone_folder: Path, scorer_folder: Path) -> Params:
    """Params of a transfer that takes seconds on the random backbone."""
    models = {
        "backbone": {"path": str(backbone_folder), "max_sequence_length": 16},
        "evaluate": {"scorer": str(scorer_folder)},
    }
    return Params.model_validate(PARAMS | models)


@pytest.fixture(scope="session")
def sample_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mp4 of a red square moving along a zigzag, 33 frames of 64 x 64 at 8 fps."""
    path = tmp_path_factory.mktemp("videos") / "zigzag.mp4"
    motion = held_out("zigzag", np.random.default_rng(0), 33, 10.0)
    write_video(path, object_clip(Look("square", "red", 10.0), Ground("navy"), motion, "").frames, 8)
    return path


@pytest.fixture
def clip(sample_video: Path) -> Clip:
    """One catalog row over the sample video, with two prompts."""
    prompts = ("a green circle on a gray background", "a yellow star on a black background")
    return Clip(clip="zigzag", video=sample_video, caption="a red square on a navy background", prompts=prompts)


@pytest.fixture
def workspace(tmp_path: Path, params: Params) -> Workspace:
    """A workspace over an empty store."""
    return Workspace(Store(tmp_path / "store"), params)


def save_random_pipeline(folder: Path, *, layers: int = 2, heads: int = 4, head_width: int = 12) -> Path:
    """Saves a WanPipeline with random weights as stock diffusers saves one; returns its folder."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    z_dim = 4
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=z_dim,
        dim_mult=[1, 1, 1],
        temperal_downsample=[True, True],
        num_res_blocks=1,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=8,
        latents_mean=[0.0] * z_dim,
        latents_std=[1.0] * z_dim,
    )
    transformer = WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_width,
        in_channels=z_dim,
        out_channels=z_dim,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=layers,
        rope_max_seq_len=64,
    )
    for block in transformer.blocks:  # random norms and biases, so that a wrong permutation shows
        for module in (block.attn1.norm_q, block.attn1.norm_k):
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
    encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipeline = WanPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=vae, scheduler=scheduler, transformer=transformer
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
