"""A plan counts the encoder that reads an image, and the image beside the noise, as a real run holds them."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from effivmt.method.backbone import Backbone
from effivmt.method.memory_choices import MemoryChoices
from effivmt.method.rendering import render
from effivmt.pipeline.stages.first_frame import fitted
from effivmt.pipeline.workspace import Workspace
from effivmt.planning.counting import Counter
from effivmt.planning.stages import StageCounter
from effivmt.store.store import Store


@pytest.fixture
def work(i2v_2_1_folder, i2v_params, tmp_path) -> Workspace:
    """Over the layout of Wan 2.1 I2V with an image encoder that takes as much as all other parts."""
    folder = Path(shutil.copytree(i2v_2_1_folder, tmp_path / "wider"))
    size = {"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    CLIPVisionModel(CLIPVisionConfig(intermediate_size=20_000, **size)).save_pretrained(folder / "image_encoder")
    params = i2v_params["2.1"]
    backbone = params.backbone.model_copy(update={"path": str(folder)})
    return Workspace(Store(tmp_path / "store"), params.model_copy(update={"backbone": backbone}))


def held(*models: torch.nn.Module) -> Counter:
    counter = Counter("cpu")
    for model in models:
        counter.add([*model.parameters(), *model.buffers()])
    return counter


def test_a_first_frame(work, image):
    backbone, picture = work.backbone, fitted(work, image)
    with held(backbone.vae) as encoding:
        backbone._encode(torch.zeros(1, 3, 17, 32, 32))
    with held(backbone.vae, backbone._image_encoder()) as reading:
        backbone._embed_image(picture)
    counter = StageCounter(work.folder.path, work.params)
    assert counter._image(tiled=False).peak == pytest.approx(max(encoding.peak, reading.peak), rel=0.15)
    assert counter.cost("heads", MemoryChoices()).device_bytes >= counter._image(tiled=False).peak


def test_a_video_that_begins_with_it(work, image):
    backbone: Backbone = work.backbone
    prompts, encoder = backbone.encode_texts(["a red square", "blur"]), backbone._image_encoder()
    backbone.keep("image_encoder")
    with held(backbone.transformer, backbone.vae, encoder) as counter:
        render(
            backbone, None, *prompts, params=work.params.render, size=work.params.ingest, seed=0,
            image=fitted(work, image),
        )  # fmt: skip
    planned = StageCounter(work.folder.path, work.params).cost("render", MemoryChoices()).device_bytes
    assert planned == pytest.approx(counter.peak, rel=0.15)
    assert sum(parameter.nbytes for parameter in encoder.parameters()) > 0.3 * counter.peak
