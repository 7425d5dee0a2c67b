"""What a stage holds on the host beside a GPU: the figures of a plan, and what real runs allocate.

The meta device stands for a GPU: what is moved there leaves the host's memory.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from allocating import allocated
from diffusers import WanTransformer3DModel
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel
from transformers.core_model_loading import GLOBAL_WORKERS

from effivmt.config import BackboneParams, Params
from effivmt.method.adapter import fused, save_adapter, to_stock_layout
from effivmt.method.backbone import Backbone
from effivmt.method.checkpoint import save_checkpoint
from effivmt.method.dual_path import add_lora, dual_path, lora_parameters
from effivmt.method.memory_choices import MemoryChoices
from effivmt.planning import host
from effivmt.planning.counting import Counter, counted
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
def test_a_model_goes_to_the_gpu_weight_by_weight(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are in float32, and each weight is cast on its way. The profiler counts the mapped file too."""
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # the profiler does not see the library's threads
    assert host.LOADED_AT_ONCE >= GLOBAL_WORKERS
    kinds = {"transformer": WanTransformer3DModel, "text_encoder": UMT5EncoderModel, "image_encoder": CLIPVisionModel}
    (file,) = (folder / name).glob("*.safetensors")
    to_gpu, to_host = (
        allocated(loader(folder, kinds[name], name, torch.bfloat16, device)) - file.stat().st_size
        for device in ("meta", "cpu")
    )
    model = loader(folder, kinds[name], name, torch.bfloat16, "cpu")()
    whole = sum(parameter.nbytes for parameter in model.parameters())
    planned = host.on_the_way(model, 1 if name == "transformer" else host.LOADED_AT_ONCE)
    assert to_gpu <= min(1.15 * planned, whole / 2)
    assert to_host == pytest.approx(whole, rel=0.15)


def test_what_waits_on_the_host(folder: Path) -> None:
    counter = counter_of(folder, "bfloat16")
    whole = sum(p.nbytes for p in transformer_without_data(folder, torch.bfloat16).parameters())
    eight = sum(p.nbytes for p in transformer_without_data(folder, torch.bfloat16, float8=True).parameters())
    plain, coarse, waiting = (
        counter.cost("heads", choices).host_bytes
        for choices in (MemoryChoices(), MemoryChoices(float8_base=True), MemoryChoices(offloaded_blocks=True))
    )
    assert plain < whole / 10 and coarse == max(whole, eight) and waiting == 2 * whole
    text = counter.cost("text", MemoryChoices())
    assert counter.cost("text", MemoryChoices(text_on_host=True)).host_bytes == text.device_bytes > text.host_bytes


def test_a_checkpoint_on_its_way_to_the_disk(folder: Path, tmp_path: Path) -> None:
    counter, backbone = counter_of(folder, "float32"), Backbone(BackboneParams(path=str(folder)))
    with dual_path(backbone.transformer, half_temporal(backbone.transformer)) as transformer:
        weights = add_lora(transformer, "temporal", 16, torch.Generator())
        optimizer = torch.optim.AdamW(lora_parameters(transformer))
        for leaf in lora_parameters(transformer):
            leaf.grad = torch.zeros_like(leaf)
        optimizer.step()
        taken = allocated(lambda: save_checkpoint(tmp_path / "state", 1, weights, optimizer, logs={}))
    assert taken == pytest.approx(host.saving(counter._lora_bytes(16)), rel=0.15)


def test_an_adapter_on_its_way_to_the_disk(folder: Path, tmp_path: Path) -> None:
    counter, transformer = counter_of(folder, "float32"), transformer_without_data(folder, torch.float32)
    heads = half_temporal(transformer)
    looks = {name: torch.ones(weight.shape) for name, weight in stock_lora(transformer, 16).items()}
    with dual_path(Backbone(BackboneParams(path=str(folder))).transformer, heads) as split:
        tuned = {
            name: weight.detach().clone() for name, weight in add_lora(split, "temporal", 16, torch.Generator()).items()
        }
    facts = {
        "backbone": {"id": "random", "digest": "0" * 64},
        "clip": {"caption": "a square", "digest": "0" * 64},
        "ranks": {"spatial": 16, "temporal": 16},
        "params": {},
    }
    taken = allocated(
        lambda: save_adapter(tmp_path / "adapter", looks, to_stock_layout(tuned, heads), heads, facts=facts)
    )
    own = counter._lora_bytes(16)
    assert taken + own + host.tuned(own) == pytest.approx(host.writing(own, own), rel=0.15)
    assert sum(weight.nbytes for weight in tuned.values()) == host.tuned(own)


def test_originals_of_merged_weights_wait_there(folder: Path) -> None:
    transformer = transformer_without_data(folder, torch.float32)
    projections = [
        linear for name, linear in transformer.named_modules() if ".attn1.to_" in name and hasattr(linear, "weight")
    ]
    with counted([transformer]) as counter:
        with fused(transformer, {"spatial": (stock_lora(transformer, 4), 1.0)}):
            assert counter.host_bytes == sum(linear.weight.nbytes for linear in projections)
        assert counter.host_bytes == 0


def test_a_decoded_video_becomes_bytes(folder: Path) -> None:
    """On the meta device as the GPU: what comes from there takes no memory, and is counted beside what does."""
    backbone = Backbone(BackboneParams(path=str(folder), device="meta"))
    with Counter() as counter:
        taken = allocated(lambda: backbone.decode_video(torch.zeros(4, 5, 16, 16)))
    assert taken + counter.host_peak == pytest.approx(host.pictures(17, 128, 128), rel=0.15)
