"""`backbone.compile`: the same results to rounding, and one line where torch cannot compile."""

import numpy as np
import pytest
import torch
import torch._inductor.config
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import InductorError

from effivmt.config import BackboneParams, IngestParams, RenderParams, SamplingParams, TemporalParams
from effivmt.errors import ParamsError
from effivmt.method.adapter import Adapter
from effivmt.method.backbone import Backbone
from effivmt.method.compiling import check_compiler, compiled_blocks
from effivmt.method.heads import HeadMap
from effivmt.method.memory_choices import MemoryChoices
from effivmt.method.rendering import render
from effivmt.method.tuning import tune_temporal

CPU = torch.device("cpu")
HEADS = HeadMap(np.zeros((2, 4)), np.zeros((2, 4)), np.array([[0, 1, 0, 1], [1, 1, 0, 1]], dtype=bool))


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Nothing that was compiled before is found."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))


def test_without_a_compiler_it_is_one_line(own_cache, monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nowhere/g++",))
    with pytest.raises(
        ParamsError, match=r"backbone.compile is true but torch cannot compile here .*install a"
    ) as told:
        check_compiler(CPU, MemoryChoices())
    assert "\n" not in str(told.value) and issubclass(InductorError, TorchDynamoException)


@pytest.mark.parametrize("memory", [MemoryChoices(offloaded_blocks=True), MemoryChoices(float8_base=True)])
def test_what_cannot_be_compiled_is_refused(memory):
    with pytest.raises(ParamsError, match=r"compile is true but backbone\.memory needs (offloaded|frozen)"):
        check_compiler(CPU, memory)


@pytest.mark.slow
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_tuning_gives_the_same_to_rounding(backbone, tmp_path, gradient_checkpointing):
    random = torch.Generator().manual_seed(0)
    latents, caption = torch.randn(1, 4, 5, 4, 4, generator=random), torch.randn(1, 16, 16, generator=random)
    params = TemporalParams(rank=2, steps=3, batch=2, learning_rate=1e-2, gradient_checkpointing=gradient_checkpointing)
    results = []
    for needed in (False, True):
        with compiled_blocks(backbone.transformer, needed=needed):
            results.append(
                tune_temporal(
                    backbone.transformer, HEADS, latents, caption, params=params, sampling=SamplingParams(frames=9),
                    num_frames=17, seed=0, clip="clip", checkpoint=tmp_path / "state",
                )
            )  # fmt: skip
    plain, compiled = results
    assert compiled.losses["denoising"] == pytest.approx(plain.losses["denoising"], rel=1e-4)
    for name, weight in plain.weights.items():
        assert torch.allclose(compiled.weights[name], weight, atol=1e-3), name
    assert not any(block._compiled_call_impl for block in backbone.transformer.blocks)


@pytest.mark.slow
def test_rendering_gives_the_same_to_rounding(backbone_folder):
    random = torch.Generator().manual_seed(0)
    lora = {
        f"transformer.blocks.{layer}.attn1.to_q.{side}.weight": torch.randn(shape, generator=random) * 0.3
        for layer in range(2)
        for side, shape in (("lora_A", (2, 48)), ("lora_B", (48, 2)))
    }
    videos = []
    for compile in (False, True):
        params = BackboneParams(path=str(backbone_folder), max_sequence_length=16, compile=compile)
        backbone = Backbone(params)
        adapter = Adapter(lora, lora, HEADS, {"backbone": backbone.found.facts})
        prompt, negative = backbone.encode_texts(["a green circle", ""])
        size = IngestParams(num_frames=5, height=32, width=32)
        videos.append(
            render(backbone, adapter, prompt, negative, params=RenderParams(steps=2), size=size, seed=0).astype(int)
        )
    assert np.abs(videos[0] - videos[1]).max() <= 1
