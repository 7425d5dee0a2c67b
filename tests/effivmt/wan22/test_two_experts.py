"""A transfer on a backbone with two transformers: each has its own head map and LoRAs, which stock programs load."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from exporting import by_card, fused_all, stock, video
from safetensors.torch import load_file, save_file

from effivmt.benchmark import peer_stages
from effivmt.benchmark.baselines.motion_director import MotionDirectorParams
from effivmt.config import Params
from effivmt.errors import AdapterError, BackboneError
from effivmt.method.adapter import Adapter, check_fits, load_adapter
from effivmt.method.adapter_manifest import read_facts
from effivmt.method.adapter_merge import Part, merge_adapters
from effivmt.method.backbone import Backbone
from effivmt.method.heads import load_head_map
from effivmt.method.rendering import render
from effivmt.method.tuning import tune_spatial, tune_temporal
from effivmt.pipeline import stages
from effivmt.pipeline.api import transfer
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.plan import plan_clip
from effivmt.pipeline.stages import Strengths
from effivmt.pipeline.transfer import TransferResult, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.store.digests import sha256_file
from effivmt.store.store import Store

EXPERTS = ("high_noise", "low_noise")


@dataclass
class Watch(Callback):
    """What each stage had in memory at each step of its progress."""

    work: Workspace | None = None
    seen: dict[str, list[tuple[int, int, set[str]]]] = field(default_factory=dict)

    def on_stage_progress(self, stage: str, done: int, total: int) -> None:
        self.seen.setdefault(stage, []).append((done, total, set(self.work.backbone._parts)))


@dataclass
class Made:
    """A transfer, what it had in memory, and its adapter folder."""

    work: Workspace
    result: TransferResult
    watch: Watch

    @property
    def folder(self) -> Path:
        return self.result.motion.path / "adapter"

    @property
    def adapter(self) -> Adapter:
        return load_adapter(self.folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("experts") / "store")


def make(store: Store, params: Params, clip) -> Made:
    watch = Watch()
    watch.work = Workspace(store, params, watch)
    return Made(watch.work, run_clip(watch.work, clip), watch)


@pytest.fixture(scope="module")
def both(store, a14b_params, zigzag) -> Made:
    return make(store, a14b_params, zigzag)


@pytest.fixture(scope="module")
def high(store, a14b_params, zigzag, both) -> Made:
    """The same with the high-noise transformer tuned alone."""
    backbone = a14b_params.backbone.model_copy(update={"experts": "high_noise"})
    return make(store, a14b_params.model_copy(update={"backbone": backbone}), zigzag)


@pytest.fixture(scope="module")
def prompts(both) -> list[torch.Tensor]:
    return both.work.backbone.encode_texts(["a red square", "blur"])


def ours(made: Made, prompts: list[torch.Tensor], **options: float) -> np.ndarray:
    """The frames uint8 that rendering gives with all of the adapter in every step."""
    params, every = made.work.params, {"appearance_strength": 1.0, "motion_boundary": 0.0}
    settings = params.render.model_copy(update={"steps": 4} | every | options)
    size = params.ingest.model_copy(update={"num_frames": 9})
    return render(made.work.backbone, made.adapter, *prompts, params=settings, size=size, seed=5)


class TestStages:
    def test_leave_files_of_each_expert(self, both):
        assert set(both.result.classified.files) == {f"heads_{name}.parquet" for name in EXPERTS} | {"heads.png"}
        assert set(both.result.appearance.files) == {f"spatial_{name}.safetensors" for name in EXPERTS} | {
            "losses.json"
        }
        kinds = {"spatial": "safetensors", "temporal": "safetensors", "comfyui": "safetensors", "heads": "parquet"}
        named = {f"{word}_{name}.{suffix}" for word, suffix in kinds.items() for name in EXPERTS}
        assert {path.name for path in both.folder.iterdir()} == named | {"README.md", "adapter.json"}
        curves = both.result.losses
        assert set(curves["spatial"]) == {f"denoising_{name}" for name in EXPERTS}
        assert set(curves["temporal"]) == {f"{loss}_{name}" for loss in ("denoising", "motion") for name in EXPERTS}
        assert all(len(curve) == 3 for stage in curves.values() for curve in stage.values())

    def test_have_one_transformer_in_memory_until_they_render(self, both):
        for stage, steps in (("heads", 1), ("spatial", 3), ("temporal", 3)):
            parts = [{"transformer"}] * steps + [{"transformer_2"}] * steps
            assert both.watch.seen[stage] == [(i + 1, 2 * steps, it) for i, it in enumerate(parts)]
        rendered = [parts for _, _, parts in both.watch.seen["render"]]
        assert rendered and all(parts == {"transformer", "transformer_2", "vae"} for parts in rendered)

    def test_a_plan_finds_all_of_it(self, both, zigzag):
        assert [stage.action for stage in plan_clip(both.work, zigzag)] == ["hit"] * len(stages.STAGES)

    @pytest.mark.slow
    def test_a_killed_tuning_goes_on_within_either_expert(self, both, store, a14b_params, zigzag, tmp_path):
        """The state of both experts is in the scratch folder of the key."""

        class Kill(Callback):
            def on_stage_progress(self, stage: str, done: int, total: int) -> None:
                if (stage, done) in (("spatial", 2), ("temporal", 5)):
                    raise KeyboardInterrupt

        fresh = Store(tmp_path / "store")
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run_clip(Workspace(fresh, a14b_params, Kill()), zigzag)
        again = run_clip(Workspace(fresh, a14b_params), zigzag)
        assert again.motion.content_digest == both.result.motion.content_digest

    def test_the_out_folder_shows_both(self, both, zigzag, tmp_path):
        _, outputs = transfer(both.work, zigzag, tmp_path / "out")
        page = outputs.report.read_text()
        assert "temporal motion high noise" in page and "spatial denoising low noise" in page
        assert read_facts(outputs.adapter)["version"] == 2
        assert json.loads(outputs.record.read_text())["backbone"]["transformer_2"]

    def test_peers_say_that_they_are_made_for_one(self, both, zigzag):
        with pytest.raises(
            BackboneError, match="has two transformers but motion_director takes one; compare it on another"
        ):
            peer_stages.tune(
                both.work, zigzag, both.result.ingested, peer="motion_director", params=MotionDirectorParams()
            )


class TestTuning:
    @pytest.mark.parametrize("index", [0, 1])
    def test_is_on_its_own_side_of_the_boundary(self, both, index, tmp_path):
        work, result = both.work, both.result
        expert = work.experts[index]
        work.backbone.keep(expert.component)
        transformer, asked = work.backbone.transformer_of(expert), []
        hook = transformer.register_forward_pre_hook(lambda _module, args: asked.append(args[1] / 1000))
        heads = load_head_map(result.classified.file(f"{expert.named('heads')}.parquet"))
        latents = {name: load_file(result.ingested.file(f"{name}.safetensors"))[name] for name in ("dense", "single")}
        caption = torch.zeros(1, 16, 16)
        common = {"seed": 0, "clip": "clip", "expert": expert}
        tune_spatial(
            transformer, heads, latents["single"], caption,
            params=work.params.spatial, checkpoint=tmp_path / "spatial", **common,
        )  # fmt: skip
        tune_temporal(
            transformer, heads, latents["dense"], caption, params=work.params.temporal, sampling=work.params.sampling,
            num_frames=17, checkpoint=tmp_path / "temporal", **common,
        )  # fmt: skip
        hook.remove()
        low, high = expert.noise
        levels = torch.cat(asked)
        assert len(levels) == 2 * 4 * 2 and levels.min() >= low and levels.max() <= high

    def test_gives_each_its_own(self, both):
        adapter = both.adapter
        for branch in ("spatial", "temporal"):
            one, other = getattr(adapter, branch), getattr(adapter.low_noise, branch)
            name = next(iter(one.keys() & other.keys()))
            assert not torch.equal(one[name], other[name])
        assert not np.array_equal(adapter.heads.spatial, adapter.low_noise.heads.spatial)


class TestExports:
    @pytest.mark.parametrize("made", ["both", "high"])
    def test_the_cards_code_gives_the_same_video(self, request, made, prompts):
        made = request.getfixturevalue(made)
        pipeline = by_card(made.folder, made.work.folder.path)
        expected = video(pipeline, prompts)
        backbone, adapter = made.work.backbone, made.adapter
        found = ours(made, prompts)
        assert np.abs(found - expected * 255.0).max() <= 0.51
        with fused_all(backbone, adapter):
            error = np.abs(video(backbone.pipeline(5.0), prompts) - expected).max()
        change = np.abs(video(stock(made.work.folder.path), prompts) - expected).max()
        print(f"max abs error {error:.1e}, change by the adapter {change:.4f}")
        assert error <= 1e-5 and change > 1e-4

    def test_comfyui_has_a_file_for_either_model(self, both, prompts):
        pipeline = stock(both.work.folder.path)
        pipeline.load_lora_weights(both.folder, weight_name="comfyui_high_noise.safetensors", adapter_name="both")
        half = video(pipeline, prompts)
        pipeline.load_lora_weights(
            both.folder, weight_name="comfyui_low_noise.safetensors", adapter_name="both", load_into_transformer_2=True
        )
        whole = video(pipeline, prompts)
        with fused_all(both.work.backbone, both.adapter):
            error = np.abs(video(both.work.backbone.pipeline(5.0), prompts) - whole).max()
        print(f"comfyui: max abs error {error:.1e}, change by the low-noise file {np.abs(half - whole).max():.2f}")
        assert error <= 1e-5 and np.abs(half - whole).max() > 0.001
        for name in EXPERTS:
            keys = load_file(both.folder / f"comfyui_{name}.safetensors")
            assert keys and all(key.startswith("diffusion_model.blocks.") and ".self_attn." in key for key in keys)

    def test_the_guidance_of_the_second_is_its_own(self, both, prompts):
        expected = video(by_card(both.folder, both.work.folder.path), prompts, guidance_scale_2=1.5)
        found = ours(both, prompts, guidance_scale_2=1.5)
        assert np.abs(found - expected * 255.0).max() <= 0.51
        assert not np.array_equal(found, ours(both, prompts))

    def test_a_rendering_knows_the_guidance_of_the_second(self, both, zigzag):
        render_2 = both.work.params.render.model_copy(update={"guidance_scale_2": 1.5, "baseline": False})
        work = Workspace(both.work.store, both.work.params.model_copy(update={"render": render_2}))
        (video,) = stages.render(work, zigzag.prompts, both.folder)
        assert video.artifact.key != both.result.rendered[0].artifact.key


class TestHighNoiseAlone:
    def test_leaves_the_other_transformer_as_it_is(self, high, both):
        assert high.adapter.low_noise is None
        assert not any("low_noise" in path.name for path in high.folder.iterdir())
        assert "load_into_transformer_2" not in (high.folder / "README.md").read_text()
        for branch in ("spatial", "temporal"):
            one, other = getattr(high.adapter, branch), getattr(both.adapter, branch)
            assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
        seen = [parts for stage in ("heads", "spatial", "temporal") for _, _, parts in high.watch.seen[stage]]
        assert seen and all(parts == {"transformer"} for parts in seen)

    def test_is_rendered_with_whatever_is_tuned(self, high, both, zigzag):
        """An adapter says itself what it is of."""
        (video,) = stages.render(both.work, zigzag.prompts, high.folder)
        assert video.artifact.cached and video.artifact.key == high.result.rendered[0].artifact.key
        assert video.artifact.key != both.result.rendered[0].artifact.key


class TestMerging:
    def test_each_transformer_is_merged_from_the_parts_that_have_it(self, both, high, zigzag):
        merged = stages.merge(both.work, [both.folder, high.folder], [Strengths(0.5, 1.0), Strengths(0.0, 0.25)])
        adapter, facts = load_adapter(merged.folder("adapter")), read_facts(merged.path / "adapter")
        assert facts["version"] == 2 and facts["pipeline"] == {"boundary_ratio": 0.875}
        name = next(iter(both.adapter.temporal)).partition(".lora_")[0]
        down, up = (adapter.temporal[f"{name}.lora_{side}.weight"] for side in "AB")
        parts = [(made.adapter.temporal, motion) for made, motion in ((both, 1.0), (high, 0.25))]
        change = sum(m * w[f"{name}.lora_B.weight"] @ w[f"{name}.lora_A.weight"] for w, m in parts)
        assert torch.allclose(up @ down, change, atol=1e-6)
        assert all(torch.equal(adapter.low_noise.temporal[n], w) for n, w in both.adapter.low_noise.temporal.items())
        (video,) = stages.render(both.work, zigzag.prompts, merged.folder("adapter"))
        assert video.artifact.file("video.mp4").is_file()

    def test_without_the_seconds_part_there_is_none_of_it(self, both, high):
        merged = stages.merge(both.work, [both.folder, high.folder], [Strengths(0.0, 0.0), Strengths(1.0, 1.0)])
        assert load_adapter(merged.folder("adapter")).low_noise is None

    def test_another_second_transformer_is_refused(self, both, high):
        parts = [Part(both.adapter, 1.0, 1.0), Part(high.adapter, 1.0, 1.0)]
        parts[1].adapter.facts["backbone"].pop("transformer_2")
        with pytest.raises(AdapterError, match="whose second transformers are not the same"):
            merge_adapters(parts)


class TestRefusals:
    def test_another_second_transformer(self, both):
        transformers = [both.work.backbone.transformer_of(expert) for expert in both.work.folder.shape.experts]
        facts = both.work.folder.facts
        check_fits(both.adapter, transformers[0], facts, second=transformers[1])
        with pytest.raises(AdapterError, match=r"second transformer's digest \w{12}\) but this .* digest ffff"):
            check_fits(both.adapter, transformers[0], facts | {"transformer_2": "f" * 64}, second=transformers[1])

    def test_a_backbone_of_one(self, both, backbone: Backbone, prompts):
        """It has the very weights of the first transformer."""
        params = both.work.params
        with pytest.raises(AdapterError, match=r"second transformer's digest \w{12}\) but .* digest none;"):
            render(backbone, both.adapter, *prompts, params=params.render, size=params.ingest, seed=0)
        with pytest.raises(AdapterError, match="LoRAs of a second transformer but the backbone has one alone"):
            check_fits(both.adapter, backbone.transformer)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            ("missing", r"temporal_low_noise\.safetensors is missing"),
            ("unlisted", "does not list the adapter's files"),
            ("zero", r"its temporal branch \(low_noise\) is zero"),
            ("empty", "it has no weights of the low_noise transformer"),
        ],
    )
    def test_damage_names_the_expert(self, both, tmp_path, damage, message):
        folder = Path(shutil.copytree(both.folder, tmp_path / "copy"))
        path = folder / "temporal_low_noise.safetensors"
        facts = json.loads((folder / "adapter.json").read_text())
        if damage == "missing":
            path.unlink()
        elif damage == "unlisted":
            del facts["files"][path.name]
        elif damage == "zero":
            save_file({name: 0 * weight for name, weight in load_file(path).items()}, path)
        else:
            save_file({}, path)
            save_file({}, folder / "spatial_low_noise.safetensors")
        present = {name for name in facts["files"] if (folder / name).exists()}
        facts["files"] |= {name: sha256_file(folder / name) for name in present}
        (folder / "adapter.json").write_text(json.dumps(facts))
        with pytest.raises(AdapterError, match=message):
            load_adapter(folder)
