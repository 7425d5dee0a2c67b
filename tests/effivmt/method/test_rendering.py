"""Rendering is the stock pipeline's, decided by prompt, seed, strengths and the adapter alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
)
from safetensors.torch import save as to_bytes

from effivmt.config import IngestParams, RenderParams
from effivmt.method.adapter import Adapter, to_stock_layout
from effivmt.method.backbone import Backbone
from effivmt.method.dual_path import add_lora, dual_path
from effivmt.method.heads import label_heads
from effivmt.method.rendering import render

SIZE = IngestParams(num_frames=9, height=32, width=48)
PARAMS = RenderParams(steps=3, guidance_scale=4.0, flow_shift=5.0, motion_boundary=0.0)
PROMPT, NEGATIVE = "a green circle on a gray background", "blur"


@pytest.fixture(scope="module")
def prompts(backbone) -> list[torch.Tensor]:
    return backbone.encode_texts([PROMPT, NEGATIVE])


@pytest.fixture(scope="module")
def adapter(backbone) -> Adapter:
    """LoRAs of random weights on both branches."""
    heads = label_heads(np.array([[0.1, 0.9] * 2] * 2), np.full((2, 4), 0.5), 1.0)
    stock, random = [], torch.Generator().manual_seed(0)
    for branch in ("spatial", "temporal"):
        with dual_path(backbone.transformer, heads):
            weights = add_lora(backbone.transformer, branch, 2, random)
        weights = {name: torch.randn(w.shape, generator=random) * 0.2 for name, w in weights.items()}
        stock.append(to_stock_layout(weights, heads))
    return Adapter(*stock, heads, {"backbone": {"id": backbone.id, "digest": backbone.digest}})


def frames_of(backbone, adapter, prompts, seed=0, **changes) -> np.ndarray:
    return render(backbone, adapter, *prompts, params=PARAMS.model_copy(update=changes), size=SIZE, seed=seed)


class TestRender:
    def test_same_seed_same_bytes_other_seed_other_video(self, backbone, adapter, prompts):
        first, again, other = (frames_of(backbone, adapter, prompts, seed) for seed in (3, 3, 4))
        assert first.shape == (9, 32, 48, 3) and first.dtype == np.uint8
        assert first.tobytes() == again.tobytes()
        assert np.abs(first.astype(int) - other).max() > 10

    def test_global_randomness_does_not_matter(self, backbone, adapter, prompts):
        torch.manual_seed(1)
        first = frames_of(backbone, adapter, prompts)
        torch.manual_seed(2)
        assert first.tobytes() == frames_of(backbone, adapter, prompts).tobytes()

    def test_strength_zero_equals_no_adapter_exactly(self, backbone, adapter, prompts):
        none = frames_of(backbone, None, prompts)
        zero = frames_of(backbone, adapter, prompts, appearance_strength=0.0, motion_strength=0.0)
        assert zero.tobytes() == none.tobytes()

    def test_each_strength_turns_its_own_branch(self, backbone, adapter, prompts):
        settings = [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.5, 1.0), (0.0, 0.0)]
        videos = {
            frames_of(backbone, adapter, prompts, appearance_strength=a, motion_strength=m).tobytes()
            for a, m in settings
        }
        assert len(videos) == len(settings)
        alone = Adapter({}, adapter.temporal, adapter.heads, adapter.facts)
        motion = frames_of(backbone, adapter, prompts, appearance_strength=0.0)
        assert frames_of(backbone, alone, prompts).tobytes() == motion.tobytes()

    def test_the_motion_ends_at_its_boundary_and_the_appearance_goes_on(self, backbone, adapter, prompts):
        unmoved, least, half = (frames_of(backbone, adapter, prompts, motion_boundary=at) for at in (0.0, 0.01, 0.9))
        assert least.tobytes() == unmoved.tobytes()  # no step is at so low a noise level
        assert np.abs(half.astype(int) - unmoved).max() > 1
        motion = Adapter({}, adapter.temporal, adapter.heads, adapter.facts)
        assert np.abs(half.astype(int) - frames_of(backbone, motion, prompts, motion_boundary=0.9)).max() > 1

    def test_leaves_the_backbone_as_it_was(self, backbone, adapter, prompts):
        before = to_bytes(backbone.transformer.state_dict())
        frames_of(backbone, adapter, prompts)
        frames_of(backbone, adapter, prompts, motion_boundary=0.9)
        assert to_bytes(backbone.transformer.state_dict()) == before

    def test_every_step_is_reported(self, backbone, prompts):
        seen = []
        render(
            backbone,
            None,
            *prompts,
            params=PARAMS,
            size=SIZE,
            seed=0,
            progress=lambda done, total: seen.append((done, total)),
        )
        assert seen == [(1, 3), (2, 3), (3, 3)]

    @pytest.mark.parametrize("guidance", [1.0, 4.0])
    def test_stock_pipeline_gives_the_same_frames_from_the_text(self, backbone, prompts, guidance):
        scheduler = UniPCMultistepScheduler.from_pretrained(backbone.folder, subfolder="scheduler", flow_shift=5.0)
        pipeline = WanPipeline.from_pretrained(backbone.folder, scheduler=scheduler)
        pipeline.set_progress_bar_config(disable=True)
        expected = pipeline(
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            height=32,
            width=48,
            num_frames=9,
            num_inference_steps=3,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(7),
            max_sequence_length=16,
            output_type="np",
        ).frames[0]
        found = frames_of(backbone, None, prompts, seed=7, guidance_scale=guidance)
        assert np.array_equal(found, (expected * 255).round().astype(np.uint8))

    @pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, DPMSolverMultistepScheduler])
    def test_another_flow_scheduler_in_the_folder_gives_the_same_frames(self, backbone, prompts, tmp_path, kind):
        folder = Path(shutil.copytree(backbone.folder, tmp_path / "copy"))
        flow = {} if kind is FlowMatchEulerDiscreteScheduler else {"prediction_type": "flow_prediction"}
        kind(**flow).save_pretrained(folder / "scheduler")
        other = Backbone(backbone.params.model_copy(update={"path": str(folder)}))
        assert other.found.shape.scheduler == kind.__name__
        assert frames_of(other, None, prompts).tobytes() == frames_of(backbone, None, prompts).tobytes()

    def test_a_unipc_that_says_nothing_of_flow_sigmas_samples_with_them(self, backbone, prompts, tmp_path):
        folder = Path(shutil.copytree(backbone.folder, tmp_path / "copy"))
        UniPCMultistepScheduler(prediction_type="flow_prediction").save_pretrained(folder / "scheduler")
        other = Backbone(backbone.params.model_copy(update={"path": str(folder)}))
        assert frames_of(other, None, prompts).tobytes() == frames_of(backbone, None, prompts).tobytes()

    def test_prompt_negative_prompt_shift_and_guidance_count(self, backbone, prompts):
        default = frames_of(backbone, None, prompts)
        changed = [
            frames_of(backbone, None, prompts[::-1]),
            frames_of(backbone, None, [prompts[0], prompts[0]]),
            frames_of(backbone, None, prompts, flow_shift=1.0),
            frames_of(backbone, None, prompts, guidance_scale=8.0),
        ]
        assert all(video.tobytes() != default.tobytes() for video in changed)
