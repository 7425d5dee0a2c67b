"""Random backbones that take an image, each laid out as a real one, and a clip whose videos begin with an image."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.media.video import write_image
from effivmt.world.scenes import draw_clip

TUNING = {"rank": 2, "steps": 3, "batch": 2, "save_every": 1, "learning_rate": 0.05}


@pytest.fixture(scope="session")
def first_frame_folder(backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random backbone, said to be trained with a clean first latent frame, as wan-tiny is."""
    folder = Path(shutil.copytree(backbone_folder, tmp_path_factory.mktemp("models") / "first-frame-random"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_first_frame": True}))
    return folder


@pytest.fixture(scope="session")
def i2v_2_1_folder(backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of Wan 2.1 I2V: the image beside the noise, and read by CLIP."""
    stock = WanPipeline.from_pretrained(backbone_folder)
    torch.manual_seed(1)
    size = {"hidden_size": 20, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    square = {"height": 16, "width": 16}
    folder = tmp_path_factory.mktemp("models") / "i2v-2.1-random"
    WanImageToVideoPipeline(
        stock.tokenizer,
        stock.text_encoder,
        stock.vae,
        stock.scheduler,
        image_processor=CLIPImageProcessorPil(size=square, crop_size=square),
        image_encoder=CLIPVisionModel(CLIPVisionConfig(image_size=16, patch_size=8, **size)),
        transformer=_transformer(stock, image_dim=20, added_kv_proj_dim=48),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def i2v_2_2_folder(backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of Wan 2.2 I2V A14B: two transformers, the image beside the noise alone."""
    stock = WanPipeline.from_pretrained(backbone_folder)
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("models") / "i2v-2.2-random"
    WanImageToVideoPipeline(
        stock.tokenizer,
        stock.text_encoder,
        stock.vae,
        stock.scheduler,
        transformer=_transformer(stock),
        transformer_2=_transformer(stock),
        boundary_ratio=0.9,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of another shape than the clip's."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    write_image(path, draw_clip(5, 3, kinds={"object": 1.0}, num_frames=17).frames[0][:48])
    return path


@pytest.fixture(scope="session")
def animated(sample_video: Path, image: Path) -> Clip:
    """A clip whose one video begins with an image, without a prompt."""
    return Clip(clip="zigzag", video=sample_video, caption="a red square on a navy background", images=(image,))


@pytest.fixture(scope="session")
def image_params(first_frame_folder: Path, scorer_folder: Path) -> Params:
    """Params of a transfer that takes seconds, on the backbone that takes a clean first frame."""
    return params_of(first_frame_folder, scorer_folder)


@pytest.fixture(scope="session")
def i2v_params(i2v_2_1_folder: Path, i2v_2_2_folder: Path, scorer_folder: Path) -> dict[str, Params]:
    """The same on each layout of I2V, by its version."""
    return {
        "2.1": params_of(i2v_2_1_folder, scorer_folder, tokens=512),
        "2.2": params_of(i2v_2_2_folder, scorer_folder),
    }


def params_of(folder: Path, scorer: Path, *, tokens: int = 16) -> Params:
    return Params.model_validate(
        {
            "backbone": {"path": str(folder), "max_sequence_length": tokens},
            "ingest": {"num_frames": 17, "height": 32, "width": 32, "fps": 8},
            "sampling": {"frames": 9},
            "heads": {"noise_levels": [0.5, 0.95], "alpha": 1.0},
            "spatial": TUNING,
            "temporal": TUNING,
            "render": {"steps": 2, "baseline": False},
            "evaluate": {"scorer": str(scorer)},
        }
    )


def _transformer(stock: WanPipeline, **options: int) -> WanTransformer3DModel:
    """One as the stock pipeline's, but with the channels of an image beside those of the noise."""
    config = dict(stock.transformer.config) | {"in_channels": 2 * stock.vae.config.z_dim + 4} | options
    return WanTransformer3DModel.from_config(config)
