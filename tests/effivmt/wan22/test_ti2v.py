"""A transfer on the layout of Wan 2.2 TI2V-5B as text-to-video: sizes of 32, a timestep for each token."""

import json

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline
from safetensors.torch import load_file

from effivmt.method.adapter import load_adapter
from effivmt.method.rendering import render
from effivmt.pipeline.transfer import TransferResult, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store


@pytest.fixture(scope="module")
def work(tmp_path_factory, ti2v_params) -> Workspace:
    return Workspace(Store(tmp_path_factory.mktemp("ti2v") / "store"), ti2v_params)


@pytest.fixture(scope="module")
def done(work, zigzag) -> TransferResult:
    return run_clip(work, zigzag)


def test_the_clip_is_packed_by_16_pixels(done):
    assert load_file(done.ingested.file("dense.safetensors"))["dense"].shape == (1, 6, 5, 4, 4)


def test_the_adapter_is_of_one_transformer_and_says_what_pipeline_it_is_for(done):
    folder = done.motion.path / "adapter"
    facts = json.loads((folder / "adapter.json").read_text())
    assert facts["version"] == 1 and facts["pipeline"] == {"expand_timesteps": True}
    assert {"spatial.safetensors", "temporal.safetensors", "comfyui.safetensors", "heads.parquet"} < set(facts["files"])
    assert "for a Wan-2.2 transformer" in (folder / "README.md").read_text()


def test_stock_diffusers_gives_the_same_video(work, done):
    folder = done.motion.path / "adapter"
    prompt, negative = work.backbone.encode_texts(["a red square", "blur"])
    pipeline = WanPipeline.from_pretrained(work.folder.path)
    assert pipeline.config.expand_timesteps
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config, flow_shift=5.0)
    pipeline.set_progress_bar_config(disable=True)

    def video() -> np.ndarray:
        return pipeline(
            prompt_embeds=prompt[None], negative_prompt_embeds=negative[None], height=64, width=64, num_frames=9,
            num_inference_steps=2, guidance_scale=4.0, generator=torch.Generator().manual_seed(5), output_type="np",
        ).frames[0]  # fmt: skip

    plain = video()
    pipeline.load_lora_weights(folder, weight_name="comfyui.safetensors", adapter_name="both")
    expected = video()
    settings = work.params.render.model_copy(update={"appearance_strength": 1.0})
    size = work.params.ingest.model_copy(update={"num_frames": 9})
    found = render(work.backbone, load_adapter(folder), prompt, negative, params=settings, size=size, seed=5)
    assert np.abs(found - expected * 255.0).max() <= 0.51 and np.abs(expected - plain).max() > 0.01
