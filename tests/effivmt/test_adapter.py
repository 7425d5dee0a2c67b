"""An adapter is one LoRA in three guises (split, stock files, merged) that all give the same video, or an error."""

import copy
import json
import logging
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from safetensors.torch import save as to_bytes

from effivmt.adapter import check_fits, fused, load_adapter, save_adapter, to_comfyui, to_stock_layout
from effivmt.branches import dual_path
from effivmt.config import IngestParams, RenderParams
from effivmt.digests import sha256_file
from effivmt.errors import AdapterError
from effivmt.heads import BRANCHES, label_heads
from effivmt.manifest import read_facts
from effivmt.rendering import render
from effivmt.tuning import add_lora

SIZE = IngestParams(num_frames=9, height=32, width=32)
RENDER = RenderParams(steps=3, flow_shift=3.0, guidance_scale=4.0)
RANKS = {"spatial": 2, "temporal": 3}
MAPS = {
    "mixed": np.array([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=bool),
    "a layer of one kind": np.array([[1, 1, 1, 1], [0, 0, 1, 0]], dtype=bool),
}


@dataclass
class Tuned:
    """An adapter folder, its head map, and the LoRA weights by split-module name."""

    folder: Path
    heads: object
    split: dict[str, dict[str, torch.Tensor]]


@pytest.fixture(scope="module", params=list(MAPS))
def tuned(request, backbone, tmp_path_factory) -> Tuned:
    """LoRAs of random weights, as if tuned, written by the code under test."""
    scores = np.where(MAPS[request.param], [[[0.1]], [[0.4]]], [[[0.5]], [[0.2]]])
    heads = label_heads(*scores, 1.25)
    assert (heads.is_temporal == MAPS[request.param]).all()
    split, random = {}, torch.Generator().manual_seed(0)
    for branch, rank in RANKS.items():
        transformer = copy.deepcopy(backbone.transformer)
        with dual_path(transformer, heads):
            weights = add_lora(transformer, branch, rank, random)
            split[branch] = {name: torch.randn(w.shape, generator=random) * 0.15 for name, w in weights.items()}
    stock = {branch: to_stock_layout(weights, heads) for branch, weights in split.items()}
    folder = tmp_path_factory.mktemp("adapter") / "made"
    facts = {"backbone": {"id": backbone.id, "digest": backbone.digest}, "clip": {"caption": "a clip"}}
    save_adapter(folder, stock["spatial"], stock["temporal"], heads, facts)
    return Tuned(folder, heads, split)


@pytest.fixture
def broken(tuned, tmp_path) -> Path:
    """A copy of the folder to damage."""
    return Path(shutil.copytree(tuned.folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def prompts(backbone) -> list[torch.Tensor]:
    return backbone.encode_texts(["a red square", "blur"])


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


def video(pipeline: WanPipeline, prompts: list[torch.Tensor]) -> np.ndarray:
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
    ).frames[0]


def edit_facts(folder: Path, change) -> None:
    """Changes adapter.json, and brings its digests up to date, as a maker of another adapter would have."""
    facts = json.loads((folder / "adapter.json").read_text())
    facts["files"] = {name: sha256_file(folder / name) for name in facts["files"]}
    change(facts)
    (folder / "adapter.json").write_text(json.dumps(facts))


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
        del transformer.peft_config
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
        frames = render(backbone, adapter, *prompts, params, SIZE, seed=5)
        assert np.abs(frames - expected * 255.0).max() <= 0.51
        assert not [record for record in diffusers_log.records if record.levelno >= logging.WARNING]

    def test_comfyui_file_gives_the_same_video(self, backbone, tuned, prompts, diffusers_log):
        pipeline = stock_pipeline(backbone)
        pipeline.load_lora_weights(tuned.folder, weight_name="comfyui.safetensors", adapter_name="both")
        frames = render(backbone, load_adapter(tuned.folder), *prompts, RENDER, SIZE, seed=5)
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
        modules = [id(module) for module in transformer.modules()]
        branches = {"spatial": (adapter.spatial, 1.0), "temporal": (adapter.temporal, 2.0)}
        with pytest.raises(KeyboardInterrupt), fused(transformer, branches):
            assert to_bytes(transformer.state_dict()) != before
            raise KeyboardInterrupt
        assert to_bytes(transformer.state_dict()) == before
        assert [id(module) for module in transformer.modules()] == modules

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
            merged = transformer.get_submodule(name).weight
            assert merged.dtype == torch.bfloat16
            assert torch.equal(merged, (weight.float() + delta).bfloat16())


class TestFolder:
    def test_lists_every_file_with_its_digest(self, tuned):
        facts = read_facts(tuned.folder)
        names = {path.name for path in tuned.folder.iterdir()} - {"adapter.json"}
        assert names == set(facts["files"])
        assert names == {*(f"{name}.safetensors" for name in (*BRANCHES, "comfyui")), "heads.parquet", "README.md"}
        assert all(facts["files"][name] == sha256_file(tuned.folder / name) for name in names)
        assert facts["clip"] == {"caption": "a clip"}
        assert "a clip" in (tuned.folder / "README.md").read_text()

    def test_round_trip_is_exact(self, tuned):
        adapter = load_adapter(tuned.folder)
        for branch in BRANCHES:
            assert to_bytes(getattr(adapter, branch)) == to_bytes(to_stock_layout(tuned.split[branch], tuned.heads))
        assert np.array_equal(adapter.heads.is_temporal, tuned.heads.is_temporal)
        assert np.array_equal(adapter.heads.spatial, tuned.heads.spatial)

    def test_saving_is_deterministic(self, tuned, tmp_path):
        adapter = load_adapter(tuned.folder)
        facts = {name: adapter.facts[name] for name in ("clip", "backbone")}
        save_adapter(tmp_path, adapter.spatial, adapter.temporal, adapter.heads, facts)
        for path in tuned.folder.iterdir():
            assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name

    @pytest.mark.parametrize(
        "name", ["spatial.safetensors", "temporal.safetensors", "comfyui.safetensors", "heads.parquet", "README.md"]
    )
    def test_a_damaged_or_missing_file_is_an_error(self, broken, name):
        content = bytearray((broken / name).read_bytes())
        content[-1] ^= 1
        (broken / name).write_bytes(content)
        with pytest.raises(AdapterError, match=rf"{name} is damaged .*pull or make it again"):
            load_adapter(broken)
        (broken / name).unlink()
        with pytest.raises(AdapterError, match=rf"{name} is missing"):
            load_adapter(broken)

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": "effivmt-adapter", "version": 2}'])
    def test_a_damaged_adapter_json_is_an_error(self, broken, content):
        (broken / "adapter.json").write_text(content)
        with pytest.raises(AdapterError, match=str(broken)):
            load_adapter(broken)

    def test_no_adapter_folder_is_an_error(self, tmp_path, broken):
        with pytest.raises(AdapterError, match=r"is no adapter folder: adapter\.json is missing"):
            load_adapter(tmp_path / "absent")
        edit_facts(broken, lambda facts: facts["files"].pop("heads.parquet"))
        with pytest.raises(AdapterError, match="does not list the adapter's files"):
            load_adapter(broken)

    def test_weights_that_are_no_safetensors_are_an_error(self, broken):
        torch.save({"a": torch.zeros(1)}, broken / "spatial.safetensors")
        edit_facts(broken, lambda facts: None)
        with pytest.raises(AdapterError, match=r"spatial\.safetensors cannot be read"):
            load_adapter(broken)

    @pytest.mark.parametrize("branch", BRANCHES)
    @pytest.mark.parametrize("zero", ["lora_A", "lora_B", "lora"])
    def test_a_branch_that_changes_nothing_is_an_error(self, broken, branch, zero):
        """B alone being zero, as before the first step, is the silent no-op that one must not ship."""
        path = broken / f"{branch}.safetensors"
        save_file({name: w * (zero not in name) for name, w in load_file(path).items()}, path)
        edit_facts(broken, lambda facts: None)
        with pytest.raises(AdapterError, match=rf"{branch} branch is zero"):
            load_adapter(broken)

    def test_weights_that_are_not_finite_are_an_error(self, broken):
        path = broken / "temporal.safetensors"
        weights = load_file(path)
        next(iter(weights.values()))[0, 0] = float("nan")
        save_file(weights, path)
        edit_facts(broken, lambda facts: None)
        with pytest.raises(AdapterError, match="temporal branch is not finite"):
            load_adapter(broken)


class TestCheckFits:
    def test_accepts_its_own_backbone(self, backbone, tuned):
        check_fits(load_adapter(tuned.folder), backbone.transformer, backbone.digest)

    def test_another_digest_is_named_beside_this_one(self, backbone, tuned):
        message = rf"made for backbone wan-random \(digest {backbone.digest[:12]}\) but .* digest ffffffffffff;"
        with pytest.raises(AdapterError, match=message):
            check_fits(load_adapter(tuned.folder), backbone.transformer, "f" * 64)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"num_attention_heads": 3}, r"\(48, 3\).* but the backbone's layer needs \(36, R\) and \(R, 36\)"),
            ({"num_layers": 1}, r"LoRA of blocks\.1\.attn1\.to_. but the backbone has no such linear layer"),
        ],
    )
    def test_another_shape_names_both_sides(self, backbone, tuned, change, message):
        config = {**backbone.transformer.config, **change}
        other = WanTransformer3DModel.from_config({k: v for k, v in config.items() if not k.startswith("_")})
        adapter = load_adapter(tuned.folder)
        adapter.spatial.clear()
        with pytest.raises(AdapterError, match=message):
            check_fits(adapter, other)

    @pytest.mark.parametrize(
        ("name", "weight"),
        [
            ("transformer.blocks.0.attn1.to_q.alpha", torch.ones(())),
            ("transformer.blocks.0.attn1.norm_q.lora_A.weight", torch.ones(2, 48)),
            ("blocks.0.attn1.to_q.lora_A.weight", torch.ones(2, 48)),
            ("transformer.blocks.0.attn2.to_q.lora_B.weight", torch.ones(48, 2)),
        ],
    )
    def test_unknown_names_and_lone_halves_are_errors(self, backbone, tuned, name, weight):
        adapter = load_adapter(tuned.folder)
        adapter.temporal[name] = weight
        with pytest.raises(AdapterError, match=r"blocks\.0\.attn"):
            check_fits(adapter, backbone.transformer)

    def test_halves_of_different_rank_are_an_error(self, backbone, tuned):
        adapter = load_adapter(tuned.folder)
        name = "transformer.blocks.0.attn1.to_q.lora_A.weight"
        adapter.temporal[name] = adapter.temporal[name][:1]
        with pytest.raises(AdapterError, match=r"has B \(48, 3\) and A \(1, 48\)"):
            check_fits(adapter, backbone.transformer)

    def test_rendering_refuses_another_backbones_adapter(self, backbone, tuned, prompts, broken):
        edit_facts(broken, lambda facts: facts["backbone"].update(id="other", digest="e" * 64))
        with pytest.raises(AdapterError, match="made for backbone other"):
            render(backbone, load_adapter(broken), *prompts, RENDER, SIZE, seed=0)
