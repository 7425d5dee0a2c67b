"""Ablations of the two stages: other head splits than the classified one, and no appearance stage."""

import copy

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline
from safetensors.torch import load_file

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import AdapterError
from effivmt.method.adapter import fused, load_adapter, save_adapter
from effivmt.method.heads import HeadMap, load_head_map, save_head_map, split_heads
from effivmt.method.rendering import render
from effivmt.method.seeding import generator
from effivmt.pipeline import stages
from effivmt.pipeline.workspace import Workspace
from effivmt.store.artifact import Artifact
from effivmt.store.store import Store

SPLITS = ("random", "swapped", "none")


def classified(layers: int = 8, heads: int = 6) -> HeadMap:
    random = np.random.default_rng(0)
    scores = random.random((2, layers, heads))
    return HeadMap(*scores, scores[0] < scores[1])


class TestSplitHeads:
    def test_random_has_as_many_temporal_heads_in_each_layer(self):
        own = classified()
        drawn = split_heads(own, "random", generator(0, "split"))
        assert np.array_equal(drawn.is_temporal.sum(1), own.is_temporal.sum(1))
        assert not np.array_equal(drawn.is_temporal, own.is_temporal)
        again, other = (split_heads(own, "random", generator(seed, "split")) for seed in (0, 1))
        assert np.array_equal(again.is_temporal, drawn.is_temporal)
        assert not np.array_equal(other.is_temporal, drawn.is_temporal)

    def test_swapped_is_the_complement_and_keeps_the_scores(self):
        own = classified()
        swapped = split_heads(own, "swapped", torch.Generator())
        assert np.array_equal(swapped.is_temporal, ~own.is_temporal)
        assert swapped.spatial is own.spatial and swapped.temporal is own.temporal

    @pytest.mark.parametrize("split", ["classified", *SPLITS])
    def test_the_file_says_what_was_used(self, split, tmp_path):
        used = split_heads(classified(), split, generator(0, "split"))
        save_head_map(tmp_path / "heads.parquet", used)
        found = load_head_map(tmp_path / "heads.parquet")
        assert found.decoupled == used.decoupled == (split != "none")
        assert np.array_equal(found.branch, used.branch) and np.array_equal(found.spatial, used.spatial)
        assert (set(found.branch.ravel()) == {"both"}) == (split == "none")

    def test_a_map_that_is_both_in_part_is_refused(self, tmp_path, monkeypatch):
        half = classified()
        monkeypatch.setattr(HeadMap, "branch", np.where(half.is_temporal, "both", "spatial"))
        save_head_map(tmp_path / "heads.parquet", half)
        with pytest.raises(AdapterError, match=r"spatial or temporal \(or both in all\)"):
            load_head_map(tmp_path / "heads.parquet")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("split") / "store")


def tune(work: Workspace, clip: Clip) -> tuple[Artifact, Artifact]:
    """The head map and the adapter."""
    ingested = stages.ingest(work, clip)
    heads = stages.heads(work, clip, ingested)
    appearance = stages.spatial(work, clip, ingested, heads)
    return heads, stages.temporal(work, clip, ingested, heads, appearance=appearance)


def changed(params: Params, **sections: dict[str, object]) -> Params:
    tree = params.model_dump()
    for name, fields in sections.items():
        tree[name] |= fields
    return Params.model_validate(tree)


def changed_rows(weights: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """Heads bool (N,) of a projection that has its outputs in heads, which the LoRA changes."""
    up, down = (weights[f"transformer.blocks.{name}.{side}.weight"] for side in ("lora_B", "lora_A"))
    return (up @ down).reshape(4, 12, -1).flatten(1).any(1)


class TestTuning:
    def test_the_default_keeps_its_key(self, store, params, clip):
        work = Workspace(store, params)
        artifact = stages.heads(work, clip, stages.ingest(work, clip))
        assert '"split"' not in (artifact.path / "artifact.json").read_text()

    @pytest.mark.parametrize("split", SPLITS)
    def test_each_split_tunes_the_heads_that_it_names(self, split, store, params, clip):
        own = load_head_map(tune(Workspace(store, params), clip)[0].file("heads.parquet"))
        work = Workspace(store, changed(params, heads={"split": split}))
        heads, tuned = tune(work, clip)
        used, adapter = load_head_map(heads.file("heads.parquet")), load_adapter(tuned.path / "adapter")
        assert np.array_equal(adapter.heads.branch, used.branch)
        for layer in range(2):
            for projection in ("to_q", "to_k", "to_v"):
                for branch, weights in (("spatial", adapter.spatial), ("temporal", adapter.temporal)):
                    expected = np.isin(used.branch[layer], [branch, "both"])
                    name = f"{layer}.attn1.{projection}"
                    if f"transformer.blocks.{name}.lora_A.weight" in weights:
                        assert np.array_equal(changed_rows(weights, name).numpy(), expected)
                    else:
                        assert not expected.any()
        if split == "swapped":
            assert np.array_equal(used.is_temporal, ~own.is_temporal)
        if split == "random":
            assert np.array_equal(used.is_temporal.sum(1), own.is_temporal.sum(1))

    def test_without_decoupling_the_backbone_stays_stock(self, store, params, clip, backbone):
        """Tuning puts its LoRA on the very projections, and takes it off again."""
        before = {name: weight.clone() for name, weight in backbone.transformer.state_dict().items()}
        modules = [type(module) for module in backbone.transformer.modules()]
        work = Workspace(store, changed(params, heads={"split": "none"}, temporal={"steps": 2}))
        work.loaded.backbone = backbone
        _, tuned = tune(work, clip)
        assert not tuned.cached
        after = backbone.transformer.state_dict()
        assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
        assert [type(module) for module in backbone.transformer.modules()] == modules
        assert not hasattr(backbone.transformer, "peft_config")

    @pytest.mark.parametrize("sections", [{"heads": {"split": "none"}}, {"spatial": {"steps": 0}}], ids=str)
    def test_the_stock_pipeline_gives_the_same_video(self, sections, store, params, clip, backbone):
        _, tuned = tune(Workspace(store, changed(params, **sections)), clip)
        folder = tuned.path / "adapter"
        prompt, negative = backbone.encode_texts([clip.prompts[0], ""])
        settings, size = params.render.model_copy(update={"steps": 3, "motion_boundary": 0.0}), params.ingest
        own = render(backbone, load_adapter(folder), prompt, negative, params=settings, size=size, seed=5)
        plain = render(backbone, None, prompt, negative, params=settings, size=size, seed=5)
        for files in (["spatial.safetensors", "temporal.safetensors"], ["comfyui.safetensors"]):
            scheduler = UniPCMultistepScheduler.from_pretrained(
                backbone.folder, subfolder="scheduler", flow_shift=settings.flow_shift
            )
            pipeline = WanPipeline.from_pretrained(backbone.folder, scheduler=scheduler)
            pipeline.set_progress_bar_config(disable=True)
            for name in files:
                if load_file(folder / name):
                    pipeline.load_lora_weights(folder, weight_name=name, adapter_name=name[:5])
            frames = pipeline(
                prompt_embeds=prompt[None], negative_prompt_embeds=negative[None], height=size.height,
                width=size.width, num_frames=size.num_frames, num_inference_steps=3,
                guidance_scale=settings.guidance_scale, generator=torch.Generator().manual_seed(5), output_type="np",
            ).frames[0]  # fmt: skip
            difference = np.abs((frames * 255).round() - own)
            assert difference.max() <= 1 and not np.array_equal(own, plain)


class TestNoAppearanceStage:
    def test_the_adapter_has_one_branch(self, store, params, clip, backbone):
        _, tuned = tune(Workspace(store, changed(params, spatial={"steps": 0})), clip)
        adapter = load_adapter(tuned.path / "adapter")
        assert adapter.spatial == {} and adapter.temporal and adapter.facts["ranks"] == {"spatial": 0, "temporal": 2}
        card = (tuned.path / "adapter" / "README.md").read_text()
        assert 'set_adapters(["motion"], [1.0])' in card and 'adapter_name="appearance"' not in card
        transformer = copy.deepcopy(backbone.transformer)
        with fused(transformer, {"spatial": (adapter.spatial, 1.0), "temporal": (adapter.temporal, 1.0)}) as changed_:
            weights = changed_.state_dict()
            assert any(not torch.equal(weights[n], w) for n, w in backbone.transformer.state_dict().items())

    def test_an_adapter_without_any_weights_is_refused(self, tmp_path):
        save_adapter(tmp_path, {}, {}, classified(), facts={})
        with pytest.raises(AdapterError, match="no weights at all"):
            load_adapter(tmp_path)
