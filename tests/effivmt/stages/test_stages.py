"""The steps share what they can, and run again only where something they read has changed."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from staging import ProgressCallback, changed, transfer, tune

from effivmt.media.video import read_clip, read_frames, write_video
from effivmt.method.adapter import fused, load_adapter, to_stock_layout
from effivmt.method.heads import load_head_map
from effivmt.method.rendering import render
from effivmt.method.tuning import tune_temporal
from effivmt.pipeline import stages
from effivmt.pipeline.reconstruction import load_psnr
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store


class TestTransfer:
    def test_leaves_what_each_stage_promises(self, done, clip, params):
        assert set(done.ingest.files) == {
            "frames.safetensors", "dense.safetensors", "single.safetensors", "probe.json", "excerpt.json",
            "reconstruction.json",
        }  # fmt: skip
        assert set(done.heads.files) == {"heads.parquet", "heads.png"}
        assert set(done.spatial.files) == {"spatial.safetensors", "losses.json"}
        assert {name for name in done.temporal.files if "/" not in name} == {"losses.json"}
        assert [(r.prompt, r.seed) for r in done.render] == [(prompt, 0) for prompt in clip.prompts]
        for result in done.render:
            assert result.without_adapter.digest("video.mp4") != result.artifact.digest("video.mp4")
            video, fps = read_frames(result.artifact.file("video.mp4"))
            assert video.shape == (17, 32, 32, 3) and fps == 8
        curves = json.loads(done.temporal.file("losses.json").read_text())
        assert {name: len(curve) for name, curve in curves.items()} == {"denoising": 3, "motion": 3}
        rows = json.loads(done.evaluate.file("metrics.json").read_text())
        assert [row["prompt"] for row in rows] == list(clip.prompts)
        assert all(np.isfinite(value) for row in rows for value in (row["adapter"] | row["baseline"]).values())

    def test_encodes_the_very_frames_of_the_clip(self, done, clip, backbone):
        frames = load_file(done.ingest.file("frames.safetensors"))["frames"].numpy()
        assert np.array_equal(frames, read_clip(clip.video, fps=8, num_frames=17, height=32, width=32))
        dense = load_file(done.ingest.file("dense.safetensors"))["dense"]
        single = load_file(done.ingest.file("single.safetensors"))["single"]
        assert dense.shape == (1, 4, 5, 4, 4) and single.shape == (17, 4, 1, 4, 4)
        assert torch.equal(dense[0], backbone.encode_video(frames))
        assert torch.equal(single[9], backbone.encode_video(frames[9:10]))
        error = np.square(frames - backbone.decode_video(dense[0]).astype(float)).mean()
        assert load_psnr(done.ingest) == pytest.approx(10 * np.log10(255**2 / error), abs=0.006)

    def test_the_adapter_is_both_tuned_branches(self, done, backbone):
        adapter = load_adapter(done.temporal.path / "adapter")
        looks = load_file(done.spatial.file("spatial.safetensors"))
        assert set(adapter.spatial) == set(looks) and all(torch.equal(adapter.spatial[n], looks[n]) for n in looks)
        assert any(weight.any() for weight in adapter.temporal.values())
        heads = load_head_map(done.heads.file("heads.parquet"))
        assert np.array_equal(adapter.heads.is_temporal, heads.is_temporal)
        assert adapter.facts["backbone"] == backbone.found.facts
        assert adapter.facts["ranks"] == {"spatial": 2, "temporal": 2}

    def test_the_video_is_what_rendering_gives(self, done, params, clip, backbone, tmp_path):
        prompt, negative = backbone.encode_texts([clip.prompts[0], ""])
        for adapter, artifact in (
            (load_adapter(done.temporal.path / "adapter"), done.render[0].artifact),
            (None, done.render[0].without_adapter),
        ):
            frames = render(backbone, adapter, prompt, negative, params=params.render, size=params.ingest, seed=0)
            write_video(tmp_path / "again.mp4", frames, 8)
            assert (tmp_path / "again.mp4").read_bytes() == artifact.file("video.mp4").read_bytes()

    def test_gives_the_same_bytes_in_another_store(self, done, params, clip, tmp_path):
        """On the way only the transformer is loaded while tuning, and progress counts every unit of every stage."""
        loaded, seen = {}, {}

        def look(stage: str, step: int, total: int) -> None:
            loaded.setdefault(stage, []).append(set(work.backbone._parts))
            seen.setdefault(stage, []).append((step, total))

        work = Workspace(Store(tmp_path / "store"), params, ProgressCallback(look))
        again = transfer(work, clip)
        assert again.made() == set(stages.STAGES)
        assert again.digests() == done.digests()
        assert all(parts == {"transformer"} for name in ("heads", "spatial", "temporal") for parts in loaded[name])
        assert all(parts == {"transformer", "vae"} for parts in loaded["render"])
        units = {"ingest": 19, "heads": 1, "spatial": 3, "temporal": 3, "render": 4, "evaluate": 1}
        assert seen == {stage: [(i + 1, total) for i in range(total)] for stage, total in units.items()}

    @pytest.mark.parametrize("stage", ["heads", "spatial", "temporal"])
    def test_each_stage_alone_lets_go_of_what_it_does_not_need(self, store, done, params, clip, stage):
        loaded = []
        look = ProgressCallback(lambda *_: loaded.append(set(work.backbone._parts)))
        work = Workspace(store, params, look, frozenset({stage}))
        work.backbone.encode_texts(["another"])
        assert work.backbone.vae is not None
        tune(work, clip)
        assert loaded and all(parts == {"transformer"} for parts in loaded)

    def test_stage_3_tunes_over_the_merged_looks(self, done, params, backbone, tmp_path):
        heads = load_head_map(done.heads.file("heads.parquet"))
        looks = load_file(done.spatial.file("spatial.safetensors"))
        latents = load_file(done.ingest.file("dense.safetensors"))["dense"]
        (caption,) = backbone.encode_texts(["a red square on a navy background"])
        found = {}
        for strength in (0.0, 1.0):
            with fused(backbone.transformer, {"spatial": (looks, strength)}) as transformer:
                tuned = tune_temporal(
                    transformer, heads, latents, caption[None], params=params.temporal, sampling=params.sampling,
                    num_frames=17, seed=0,
                    clip=done.ingest.digest("dense.safetensors"), checkpoint=tmp_path / f"{strength}",
                )  # fmt: skip
            found[strength] = to_stock_layout(tuned.weights, heads)
        motion = load_adapter(done.temporal.path / "adapter").temporal
        assert all(torch.equal(motion[name], found[1.0][name]) for name in motion | found[1.0])
        assert not all(torch.equal(motion[name], found[0.0][name]) for name in motion)


class TestSharing:
    def test_a_second_run_is_all_hits_and_loads_nothing(self, store, done, params, clip):
        work = Workspace(store, params)
        again = transfer(work, clip)
        assert again.made() == set() and again.digests() == done.digests()
        assert work.backbone._parts == {}

    @pytest.mark.parametrize(
        ("sections", "made"),
        [
            ({"temporal": {"motion_weight": 0.25}}, {"temporal", "render", "evaluate"}),
            ({"temporal": {"rope": "paper"}}, {"temporal", "render", "evaluate"}),
            ({"sampling": {"phases": 3}}, {"temporal", "render", "evaluate"}),
            ({"spatial": {"rank": 3}}, {"spatial", "temporal", "render", "evaluate"}),
            ({"heads": {"alpha": 0.8}}, {"heads", "spatial", "temporal", "render", "evaluate"}),
            ({"heads": {"noise_levels": [0.8]}}, {"heads", "spatial", "temporal", "render", "evaluate"}),
            ({"render": {"motion_strength": 0.5}}, {"render", "evaluate"}),
            ({"render": {"negative_prompt": "blur"}}, {"render", "evaluate"}),
            ({"render": {"seeds": [1]}}, {"render", "evaluate"}),
            ({"render": {"baseline": False}}, {"evaluate"}),
            ({"spatial": {"save_every": 2}, "temporal": {"save_every": 2}}, set()),
        ],
        ids=str,
    )
    def test_a_changed_param_runs_what_reads_it(self, store, done, params, clip, sections, made):
        assert transfer(Workspace(store, changed(params, **sections)), clip).made() == made

    def test_labels_that_stay_the_same_keep_the_tuning(self, store, done, params, clip):
        heads = load_head_map(done.heads.file("heads.parquet"))
        ratios = np.sort((heads.spatial / heads.temporal).ravel())
        own = params.heads.alpha
        alpha = (ratios[ratios < own].max() + ratios[ratios >= own].min()) / 2
        assert alpha != own
        again = transfer(Workspace(store, changed(params, heads={"alpha": alpha})), clip)
        assert again.made() == {"heads"}

    def test_the_yardstick_does_not_depend_on_the_adapter(self, store, done, params, clip):
        strengths = {"appearance_strength": 0.0, "motion_strength": 0.7}
        work = Workspace(store, changed(params, render=strengths))
        (again,) = stages.render(work, clip.prompts, done.temporal.path / "adapter")
        assert not again.artifact.cached and again.without_adapter.cached
        assert again.artifact.digest("video.mp4") != done.render[0].artifact.digest("video.mp4")

    def test_a_new_prompt_renders_only(self, store, done, params, clip):
        prompt = "a blue triangle on a white background"
        work = Workspace(store, params)
        again = transfer(work, clip.model_copy(update={"prompts": (*clip.prompts, prompt)}))
        assert [result.artifact.cached for result in again.render] == [True, False]
        assert again.made() == {"render", "evaluate"}

    def test_a_new_caption_keeps_the_clip(self, store, done, params, clip):
        again = transfer(Workspace(store, params), clip.model_copy(update={"caption": "a thing"}))
        assert again.made() == {"heads", "spatial", "temporal", "render", "evaluate"}
        assert all(result.without_adapter.cached for result in again.render)

    def test_a_new_name_or_place_of_the_video_changes_nothing(self, store, done, params, clip, tmp_path):
        (tmp_path / "moved.mp4").write_bytes(clip.video.read_bytes())
        moved = clip.model_copy(update={"video": tmp_path / "moved.mp4", "clip": "other"})
        assert transfer(Workspace(store, params), moved).made() == set()

    def test_a_trim_is_another_clip(self, store, done, params, clip):
        again = stages.ingest(Workspace(store, params), clip.model_copy(update={"start": 1.0}))
        assert not again.cached
        assert again.digest("dense.safetensors") != done.ingest.digest("dense.safetensors")

    def test_force_runs_a_stage_again_with_the_same_result(self, store, done, params, clip):
        again = transfer(Workspace(store, params, force=frozenset({"spatial", "render"})), clip)
        assert again.made() == {"spatial", "render"} and again.digests() == done.digests()
