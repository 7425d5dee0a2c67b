"""One LoRA in three guises: split, stock diffusers and ComfyUI give the same video."""

import copy
import logging
import warnings

import numpy as np
import pytest
import torch
from adapting import RANKS, RENDER, SIZE
from diffusers import UniPCMultistepScheduler, WanPipeline
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from effivmt.method.adapter import fused, load_adapter, to_comfyui, to_stock_layout
from effivmt.method.dual_path import add_lora, dual_path
from effivmt.method.heads import BRANCHES
from effivmt.method.rendering import render


@pytest.fixture
def diffusers_log(caplog):
    """Warnings of diffusers' own logger, and Python warnings, but for peft's on any second adapter, as errors."""
    library = logging.getLogger("diffusers")
    library.addHandler(caplog.handler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute in the model")
        yield caplog
    library.removeHandler(caplog.handler)


def stock_pipeline(backbone) -> WanPipeline:
    """A pipeline that shares nothing with `backbone`."""
    scheduler = UniPCMultistepScheduler.from_pretrained(
        backbone.folder, subfolder="scheduler", flow_shift=RENDER.flow_shift
    )
    pipeline = WanPipeline.from_pretrained(backbone.folder, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def video(pipeline: WanPipeline, prompts: list[torch.Tensor], **options: object) -> np.ndarray:
    """Frames float32 (T, H, W, 3) in [0, 1]."""
    return pipeline(
        prompt_embeds=prompts[0][None],
        negative_prompt_embeds=prompts[1][None],
        height=SIZE.height,
        width=SIZE.width,
        num_frames=SIZE.num_frames,
        num_inference_steps=RENDER.steps,
        guidance_scale=RENDER.guidance_scale,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
        **options,
    ).frames[0]


class TestOneLoraInThreeGuises:
    def inputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        random = torch.Generator().manual_seed(1)
        latents = torch.randn(1, 4, 3, 4, 4, generator=random)
        return latents, torch.tensor([600.0]), torch.randn(1, 16, 16, generator=random)

    @pytest.mark.parametrize("branch", BRANCHES)
    @torch.no_grad()
    def test_fused_equals_split(self, backbone, tuned, branch):
        transformer = copy.deepcopy(backbone.transformer)
        stock = transformer(*self.inputs()).sample
        with dual_path(transformer, tuned.heads):
            weights = add_lora(transformer, branch, RANKS[branch], torch.Generator())
            for name, weight in weights.items():
                weight.copy_(tuned.split[branch][name])
            split = transformer(*self.inputs()).sample
        made = getattr(load_adapter(tuned.folder), branch)
        with fused(transformer, {branch: (made, 1.0)}):
            merged = transformer(*self.inputs()).sample
        error = (merged - split).abs().max().item()
        print(f"{branch}: fused differs from split by {error:.1e}, from stock by {(merged - stock).abs().max():.2f}")
        assert error < 1e-5 and (merged - stock).abs().max() > 0.01

    @pytest.mark.parametrize("strengths", [(1.0, 1.0), (0.0, 1.0), (0.7, -0.4)])
    def test_stock_pipeline_gives_the_same_video(self, backbone, tuned, prompts, diffusers_log, strengths):
        pipeline = stock_pipeline(backbone)
        plain = video(pipeline, prompts)
        pipeline.load_lora_weights(tuned.folder, weight_name="spatial.safetensors", adapter_name="appearance")
        pipeline.load_lora_weights(tuned.folder, weight_name="temporal.safetensors", adapter_name="motion")
        pipeline.set_adapters(["appearance", "motion"], list(strengths))
        expected = video(pipeline, prompts)
        adapter = load_adapter(tuned.folder)
        branches = {"spatial": (adapter.spatial, strengths[0]), "temporal": (adapter.temporal, strengths[1])}
        with fused(backbone.transformer, branches):
            ours = video(backbone.pipeline(RENDER.flow_shift), prompts)
        error = np.abs(ours - expected).max()
        change = np.abs(ours - plain).max()
        print(f"strengths {strengths}: max abs error {error:.1e}, change by the adapter {change:.2f}")
        assert error < 5e-5 and change > 0.01
        params = RENDER.model_copy(update={"appearance_strength": strengths[0], "motion_strength": strengths[1]})
        frames = render(backbone, adapter, *prompts, params=params, size=SIZE, seed=5)
        assert np.abs(frames - expected * 255.0).max() <= 0.51
        assert not [record for record in diffusers_log.records if record.levelno >= logging.WARNING]

    def test_stock_pipeline_that_drops_the_motion_at_the_boundary_gives_the_same_video(self, backbone, tuned, prompts):
        pipeline = stock_pipeline(backbone)
        pipeline.load_lora_weights(tuned.folder, weight_name="spatial.safetensors", adapter_name="appearance")
        pipeline.load_lora_weights(tuned.folder, weight_name="temporal.safetensors", adapter_name="motion")
        pipeline.set_adapters(["appearance", "motion"], [1.0, 1.0])
        throughout = video(pipeline, prompts)

        def drop(pipe: WanPipeline, index: int, timestep: torch.Tensor, _tensors: dict) -> dict:
            if index == 0:
                pipe.set_adapters(["appearance", "motion"], [1.0, 0.0])
            return {}

        expected = video(pipeline, prompts, callback_on_step_end=drop)
        first, second = pipeline.scheduler.timesteps[:2].tolist()
        adapter = load_adapter(tuned.folder)
        for boundary in (first / 1000, (second + 1) / 1000):
            params = RENDER.model_copy(update={"motion_boundary": boundary})
            frames = render(backbone, adapter, *prompts, params=params, size=SIZE, seed=5)
            assert np.abs(frames - expected * 255.0).max() <= 0.51
        assert np.abs(expected - throughout).max() > 0.01

    def test_comfyui_file_gives_the_same_video(self, backbone, tuned, prompts, diffusers_log):
        pipeline = stock_pipeline(backbone)
        pipeline.load_lora_weights(tuned.folder, weight_name="comfyui.safetensors", adapter_name="both")
        frames = render(backbone, load_adapter(tuned.folder), *prompts, params=RENDER, size=SIZE, seed=5)
        error = np.abs(frames - video(pipeline, prompts) * 255.0).max()
        print(f"comfyui: max abs error {error:.3f} grey levels, 0.5 of them by rounding to bytes")
        assert error <= 0.51
        assert not [record for record in diffusers_log.records if record.levelno >= logging.WARNING]

    def test_comfyui_names_and_ranks(self, tuned):
        adapter = load_adapter(tuned.folder)
        joined = load_file(tuned.folder / "comfyui.safetensors")
        assert to_bytes(joined) == to_bytes(to_comfyui(adapter.spatial, adapter.temporal))
        for layer, is_temporal in enumerate(tuned.heads.is_temporal):
            rank = RANKS["spatial"] * (not is_temporal.all()) + RANKS["temporal"] * is_temporal.any()
            for letter, projection in zip("qkvo", ("to_q", "to_k", "to_v", "to_out.0"), strict=True):
                down, up = (
                    joined.pop(f"diffusion_model.blocks.{layer}.self_attn.{letter}.{side}.weight")
                    for side in ("lora_A", "lora_B")
                )
                assert down.shape == (rank, 48) and up.shape == (48, rank)
                stock = f"transformer.blocks.{layer}.attn1.{projection}"
                parts = [getattr(adapter, branch) for branch in BRANCHES]
                parts = [p for p in parts if f"{stock}.lora_A.weight" in p]
                total = sum(p[f"{stock}.lora_B.weight"] @ p[f"{stock}.lora_A.weight"] for p in parts)
                assert torch.allclose(up @ down, total, atol=1e-6)
        assert not joined


class TestStockLayout:
    def test_keeps_every_number_at_its_head(self, tuned):
        for branch in BRANCHES:
            stock = to_stock_layout(tuned.split[branch], tuned.heads)
            for name, weight in tuned.split[branch].items():
                module, _, side = name.rsplit(".", 2)
                scattered = stock.pop(f"transformer.{module}.{side}.weight")
                layer = int(module.split(".")[1])
                own = np.repeat(tuned.heads.is_temporal[layer] == (branch == "temporal"), 12)
                if module.endswith("to_out.0") and side == "lora_A":
                    assert torch.equal(scattered[:, own], weight) and not scattered[:, ~own].any()
                elif side == "lora_B" and not module.endswith("to_out.0"):
                    assert torch.equal(scattered[own], weight) and not scattered[~own].any()
                else:
                    assert torch.equal(scattered, weight)
            assert not stock


class TestFused:
    def test_brings_the_bytes_back_even_after_a_failure(self, backbone, tuned):
        transformer, adapter = copy.deepcopy(backbone.transformer), load_adapter(tuned.folder)
        before = to_bytes(transformer.state_dict())
        places = [(id(parameter), parameter.data_ptr()) for parameter in transformer.parameters()]
        branches = {"spatial": (adapter.spatial, 1.0), "temporal": (adapter.temporal, 2.0)}
        with pytest.raises(KeyboardInterrupt), fused(transformer, branches):
            assert to_bytes(transformer.state_dict()) != before
            assert [(id(p), p.data_ptr()) for p in transformer.parameters()] == places  # no second copy on a GPU
            raise KeyboardInterrupt
        assert to_bytes(transformer.state_dict()) == before
        assert [(id(parameter), parameter.data_ptr()) for parameter in transformer.parameters()] == places

    def test_strength_zero_touches_nothing(self, backbone, tuned):
        transformer, adapter = backbone.transformer, load_adapter(tuned.folder)
        addresses = [parameter.data_ptr() for parameter in transformer.parameters()]
        with fused(transformer, {"spatial": (adapter.spatial, 0.0), "temporal": (adapter.temporal, 0.0)}):
            assert [parameter.data_ptr() for parameter in transformer.parameters()] == addresses

    def test_adds_in_float32_to_a_bfloat16_transformer(self, backbone, tuned):
        transformer, adapter = copy.deepcopy(backbone.transformer).bfloat16(), load_adapter(tuned.folder)
        name = "blocks.1.attn1.to_q"
        weight = transformer.get_submodule(name).weight.clone()
        parts = [getattr(adapter, branch) for branch in BRANCHES]
        delta = sum(
            p[f"transformer.{name}.lora_B.weight"] @ p[f"transformer.{name}.lora_A.weight"] for p in parts
        )  # fmt: skip
        with fused(transformer, {branch: (getattr(adapter, branch), 1.0) for branch in BRANCHES}):
            module = transformer.get_submodule(name)
            assert torch.equal(module.weight, weight) and module.weight.dtype == torch.bfloat16
            x = torch.randn(64, weight.shape[1], generator=torch.Generator().manual_seed(0)).bfloat16()
            found, exact = module(x), x.float() @ (weight.float() + delta).T + module.bias.float()
            assert found.dtype == torch.bfloat16
            assert (found == exact.bfloat16()).float().mean() > 0.99  # sums in another order may round otherwise
