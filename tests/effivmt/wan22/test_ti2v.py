"""A transfer on the layout of Wan 2.2 TI2V-5B as text-to-video: sizes of 32, a timestep for each token."""

import json

import numpy as np
import pytest
from exporting import by_card, fused_all, stock, video
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


def test_the_cards_code_gives_the_same_video(work, done):
    folder, backbone = done.motion.path / "adapter", work.backbone
    prompts = backbone.encode_texts(["a red square", "blur"])
    pipeline = by_card(folder, backbone.folder)
    assert pipeline.config.expand_timesteps
    expected, plain = video(pipeline, prompts, side=64), video(stock(backbone.folder), prompts, side=64)
    with fused_all(backbone, load_adapter(folder)):
        error = np.abs(video(backbone.pipeline(5.0), prompts, side=64) - expected).max()
    print(f"max abs error {error:.1e}, change by the adapter {np.abs(plain - expected).max():.4f}")
    assert error <= 1e-5 and np.abs(plain - expected).max() > 1e-3
    every = {"appearance_strength": 1.0, "motion_boundary": 0.0}
    settings = work.params.render.model_copy(update={"steps": 4} | every)
    size = work.params.ingest.model_copy(update={"num_frames": 9})
    found = render(backbone, load_adapter(folder), *prompts, params=settings, size=size, seed=5)
    assert np.abs(found - expected * 255.0).max() <= 0.51
