"""Each choice for memory takes effect in the backbone, and only tiles and 8 bits change what comes out."""

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_bytes

from effivmt.config import BackboneParams, IngestParams, RenderParams, SpatialParams
from effivmt.method.adapter import Adapter
from effivmt.method.backbone import Backbone
from effivmt.method.heads import HeadMap
from effivmt.method.low_memory import activations_on_host
from effivmt.method.memory_choices import MemoryChoices
from effivmt.method.rendering import render
from effivmt.method.tuning import tune_spatial

SIZE = IngestParams(num_frames=5, height=32, width=32)
HALF = HeadMap(np.zeros((2, 4)), np.zeros((2, 4)), np.array([[0, 1, 0, 1]] * 2, dtype=bool))


def load(folder, memory: MemoryChoices, dtype: str = "float32") -> Backbone:
    return Backbone(BackboneParams(path=str(folder), max_sequence_length=16, dtype=dtype), memory=memory)


def random_lora(seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        f"transformer.blocks.{layer}.attn1.{name}.{side}.weight": torch.randn(shape, generator=random) * 0.3
        for layer in range(2)
        for name in ("to_q", "to_out.0")
        for side, shape in (("lora_A", (2, 48)), ("lora_B", (48, 2)))
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_offloaded_blocks_render_the_same_bytes(backbone_folder, dtype):
    videos = []
    for memory in (MemoryChoices(), MemoryChoices(offloaded_blocks=True)):
        backbone = load(backbone_folder, memory, dtype)
        facts = {"backbone": {"id": backbone.id, "digest": backbone.digest}}
        adapter = Adapter(random_lora(0), random_lora(1), HALF, facts)
        prompt, negative = backbone.encode_texts(["a green circle", ""])
        videos.append(render(backbone, adapter, prompt, negative, params=RenderParams(steps=2), size=SIZE, seed=0))
    assert videos[0].tobytes() == videos[1].tobytes()
    block = backbone.frozen_of(backbone.experts[0]).blocks[1]
    assert block._diffusers_hook.get_hook("group_offloading") is not None
    assert not hasattr(backbone.transformer.blocks[1], "_diffusers_hook")  # the one that is tuned
    backbone.keep("transformer", frozen=True)
    assert list(backbone._parts) == ["offloaded_transformer"]


def test_without_offloading_there_is_one_transformer(backbone_folder):
    backbone = load(backbone_folder, MemoryChoices())
    assert backbone.frozen_of(backbone.experts[0]) is backbone.transformer
    backbone.keep("transformer", frozen=True)
    assert list(backbone._parts) == ["transformer"]


def test_tiles_are_of_decoding_alone(backbone_folder):
    plain, tiled = (load(backbone_folder, memory) for memory in (MemoryChoices(), MemoryChoices(tiled_decoding=True)))
    frames = np.random.default_rng(0).integers(0, 256, (5, 320, 320, 3), dtype=np.uint8)
    latents = plain.encode_video(frames)
    assert torch.equal(tiled.encode_video(frames), latents) and not tiled.vae.use_tiling
    difference = np.abs(plain.decode_video(latents).astype(int) - tiled.decode_video(latents))
    assert tiled.vae.use_tiling and 0 < difference.mean() < 10
    assert tiled.pipeline(5.0).vae.use_tiling and not plain.pipeline(5.0).vae.use_tiling


def test_texts_are_encoded_on_the_host(backbone_folder):
    expected = load(backbone_folder, MemoryChoices()).encode_texts(["a red square"])[0]
    backbone = load(backbone_folder, MemoryChoices(text_on_host=True))
    assert torch.equal(backbone.encode_texts(["a red square"])[0], expected)
    assert backbone._parts["text_encoder"].device.type == "cpu"


def test_activations_on_the_host_tune_the_same_bytes(backbone_folder, tmp_path):
    transformer = load(backbone_folder, MemoryChoices()).transformer
    random = torch.Generator().manual_seed(0)
    frames, caption = torch.randn(3, 4, 1, 4, 4, generator=random), torch.randn(1, 16, 16, generator=random)
    params, tuned = SpatialParams(rank=2, steps=3, batch=2, gradient_checkpointing=True), []
    for needed in (False, True):
        with activations_on_host(torch.device("cpu"), needed=needed):
            tuned.append(
                tune_spatial(
                    transformer, HALF, frames, caption, params=params, seed=0, clip="", checkpoint=tmp_path / "none"
                )
            )
    assert to_bytes(tuned[0].weights) == to_bytes(tuned[1].weights)


class TestFloat8:
    @pytest.fixture
    def transformers(self, backbone_folder):
        choices = (MemoryChoices(), MemoryChoices(float8_base=True))
        return [load(backbone_folder, memory, "bfloat16").transformer for memory in choices]

    def test_halves_the_blocks_and_stays_near(self, transformers):
        linears = [
            [module.weight for module in it.blocks.modules() if isinstance(module, torch.nn.Linear)]
            for it in transformers
        ]
        assert {weight.dtype for weight in linears[1]} == {torch.float8_e4m3fn}
        assert sum(w.nbytes for w in linears[0]) == 2 * sum(w.nbytes for w in linears[1])
        assert transformers[1].dtype == torch.bfloat16
        random = torch.Generator().manual_seed(0)
        latents, text = (torch.randn(shape, generator=random).bfloat16() for shape in ((1, 4, 3, 4, 4), (1, 16, 16)))
        with torch.no_grad():
            exact, near = (it(latents, torch.tensor([500.0]), text).sample.float() for it in transformers)
        assert 0 < (near - exact).norm() / exact.norm() < 0.1

    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_a_lora_is_tuned_beside_it(self, transformers, tmp_path, checkpointing):
        transformer = transformers[1]
        before = to_bytes({k: v.view(torch.uint8) for k, v in transformer.state_dict().items() if v.nbytes})
        random = torch.Generator().manual_seed(0)
        frames, caption = torch.randn(3, 4, 1, 4, 4, generator=random), torch.randn(1, 16, 16, generator=random)
        params = SpatialParams(rank=2, steps=3, batch=2, gradient_checkpointing=checkpointing)
        tuned = tune_spatial(
            transformer, HALF, frames, caption, params=params, seed=0, clip="", checkpoint=tmp_path / "none"
        )
        assert np.isfinite(tuned.losses["denoising"]).all()
        assert any(weight.any() for name, weight in tuned.weights.items() if name.endswith("lora_B"))
        after = to_bytes({k: v.view(torch.uint8) for k, v in transformer.state_dict().items() if v.nbytes})
        assert after == before
