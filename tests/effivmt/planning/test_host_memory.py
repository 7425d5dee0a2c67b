"""What a stage holds on the host beside a GPU: the figures of a plan, and what real runs allocate.

The meta device stands for a GPU: what is moved there leaves the host's memory.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from allocating import allocated
from diffusers import WanTransformer3DModel
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from effivmt.config import BackboneParams, Params
from effivmt.method.adapter import fused, save_adapter, to_stock_layout
from effivmt.method.backbone import Backbone
from effivmt.method.checkpoint import save_checkpoint
from effivmt.method.dual_path import add_lora, dual_path, lora_parameters
from effivmt.method.memory_choices import MemoryChoices
from effivmt.planning import host
from effivmt.planning.counting import counted
from effivmt.planning.models import transformer_without_data
from effivmt.planning.runs import half_temporal, stock_lora
from effivmt.planning.stages import StageCounter

WIDTH, LAYERS = 256, 6


@pytest.fixture(scope="module")
def folder(backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random backbone with a transformer, a text encoder and an image encoder of some megabytes each."""
    folder = Path(shutil.copytree(backbone_folder, tmp_path_factory.mktemp("models") / "wider"))
    config = WanTransformer3DModel.load_config(folder / "transformer")
    wide = {"num_layers": LAYERS, "attention_head_dim": WIDTH // 4, "ffn_dim": 4 * WIDTH}
    shutil.rmtree(folder / "transformer")
    WanTransformer3DModel.from_config({**config, **wide}).save_pretrained(folder / "transformer")
    text = UMT5Config.from_pretrained(folder / "text_encoder")
    text.d_ff = 20_000
    UMT5EncoderModel(text).save_pretrained(folder / "text_encoder")
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=10_000, num_hidden_layers=6, num_attention_heads=2, image_size=16
    )
    CLIPVisionModel(vision).save_pretrained(folder / "image_encoder")
    return folder


def counter_of(folder: Path, dtype: str) -> StageCounter:
    sizes = {"ingest": {"num_frames": 17, "height": 32, "width": 32}, "sampling": {"frames": 9}}
    tuning = {"rank": 16, "batch": 1, "steps": 3}
    models = {"backbone": {"path": str(folder), "max_sequence_length": 16, "dtype": dtype}}
    return StageCounter(folder, Params.model_validate({**sizes, **models, "spatial": tuning, "temporal": tuning}))


def loader(folder: Path, kind: type, name: str, dtype: torch.dtype, device: str) -> Callable[[], object]:
    backbone = Backbone(BackboneParams(path=str(folder), max_sequence_length=16))
    return lambda: backbone._model(kind, name, dtype, torch.device(device))


@pytest.mark.parametrize("name", ["transformer", "text_encoder", "image_encoder"])
def test_a_model_goes_to_the_gpu_weight_by_weight(folder: Path, name: str) -> None:
    """The files are in float32; each weight is cast on its way."""
    kinds = {
        "transformer": WanTransformer3DModel,
        "text_encoder": UMT5EncoderModel,
        "image_encoder": CLIPVisionModel,
    }
    taken = [
        allocated(loader(folder, kinds[name], name, torch.bfloat16, device)) for device in ("meta", "cpu")
    ]
    model = loader(folder, kinds[name], name, torch.bfloat16, "cpu")()
    whole = sum(parameter.nbytes for parameter in model.parameters())
    planned = host.on_the_way(model, 1 if name == "transformer" else host.LOADED_AT_ONCE)
    print(name, taken, whole, planned)
    assert taken[0] <= 1.15 * planned < whole / 2
    assert taken[1] >= whole
