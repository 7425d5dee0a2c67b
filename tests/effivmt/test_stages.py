"""The steps share what they can, run again only where something they read has changed, and go on after a kill."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from effivmt import stages
from effivmt.adapter import fused, load_adapter, to_stock_layout
from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import AdapterError, EffiVMTError, VideoError
from effivmt.heads import load_head_map
from effivmt.positions import sampled_indices
from effivmt.rendering import render
from effivmt.stages import Rendered, Workspace
from effivmt.store import Artifact, Store
from effivmt.tuning import tune_temporal
from effivmt.video import read_clip, read_frames, write_image, write_video


@dataclass
class Transfer:
    """The artifacts of one clip."""

    ingest: Artifact
    heads: Artifact
    spatial: Artifact
    temporal: Artifact
    render: list[Rendered]
    evaluate: Artifact

    def made(self) -> set[str]:
        """The stages that had to run."""
        single = {name: [getattr(self, name)] for name in stages.STAGES if name != "render"}
        videos = [a for r in self.render for a in (r.artifact, r.baseline) if a is not None]
        found = single | {"render": videos}
        return {name for name, artifacts in found.items() if not all(artifact.cached for artifact in artifacts)}

    def digests(self) -> dict[str, str]:
        """Content of every artifact that does not depend on the clock."""
        return {name: getattr(self, name).content_digest for name in stages.STAGES if name != "render"} | {
            f"render_{i}": result.artifact.content_digest for i, result in enumerate(self.render)
        }


def tune(work: Workspace, clip: Clip) -> tuple[Artifact, Artifact, Artifact, Artifact]:
    """The first four stages."""
    ingested = stages.ingest(work, clip)
    heads = stages.heads(work, clip, ingested)
    spatial = stages.spatial(work, clip, ingested, heads)
    return ingested, heads, spatial, stages.temporal(work, clip, ingested, heads, spatial)


def transfer(work: Workspace, clip: Clip) -> Transfer:
    tuned = tune(work, clip)
    rendered = stages.render(work, clip.prompts, tuned[3].path / "adapter")
    return Transfer(*tuned, rendered, stages.evaluate(work, clip, tuned[0], rendered))


def changed(params: Params, **sections: dict[str, object]) -> Params:
    """Params with some fields of some sections changed, checked as if read from a file."""
    tree = params.model_dump()
    for name, fields in sections.items():
        tree[name] |= fields
    return Params.model_validate(tree)


@pytest.fixture
def clip(clip) -> Clip:
    """With one prompt."""
    return clip.model_copy(update={"prompts": clip.prompts[:1]})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """One store for all tests here: what two of them share is made once. Each test changes params in its own way."""
    return Store(tmp_path_factory.mktemp("stages") / "store")


@pytest.fixture
def done(store, params, clip) -> Transfer:
    """The sample clip's transfer with the params of the fixture."""
    return transfer(Workspace(store, params), clip)


class TestTransfer:
    def test_leaves_what_each_stage_promises(self, done, clip, params):
        assert set(done.ingest.files) == {
            "frames.safetensors", "dense.safetensors", "single.safetensors", "probe.json",
        }  # fmt: skip
        assert set(done.heads.files) == {"heads.parquet", "heads.png"}
        assert set(done.spatial.files) == {"spatial.safetensors", "losses.json"}
        assert {name for name in done.temporal.files if "/" not in name} == {"losses.json"}
        assert [(r.prompt, r.seed) for r in done.render] == [(prompt, 0) for prompt in clip.prompts]
        for result in done.render:
            assert result.baseline.digest("video.mp4") != result.artifact.digest("video.mp4")
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

    def test_the_adapter_is_both_tuned_branches(self, done, backbone):
        adapter = load_adapter(done.temporal.path / "adapter")
        looks = load_file(done.spatial.file("spatial.safetensors"))
        assert set(adapter.spatial) == set(looks) and all(torch.equal(adapter.spatial[n], looks[n]) for n in looks)
        assert any(weight.any() for weight in adapter.temporal.values())
        heads = load_head_map(done.heads.file("heads.parquet"))
        assert np.array_equal(adapter.heads.is_temporal, heads.is_temporal)
        assert adapter.facts["backbone"] == {"id": "wan-random", "digest": backbone.digest}
        assert adapter.facts["ranks"] == {"spatial": 2, "temporal": 2}

    def test_the_video_is_what_rendering_gives(self, done, params, clip, backbone, tmp_path):
        prompt, negative = backbone.encode_texts([clip.prompts[0], ""])
        for adapter, artifact in (
            (load_adapter(done.temporal.path / "adapter"), done.render[0].artifact),
            (None, done.render[0].baseline),
        ):
            frames = render(backbone, adapter, prompt, negative, params.render, params.ingest, 0)
            write_video(tmp_path / "again.mp4", frames, 8)
            assert (tmp_path / "again.mp4").read_bytes() == artifact.file("video.mp4").read_bytes()

    def test_gives_the_same_bytes_in_another_store(self, done, params, clip, tmp_path):
        """On the way only the transformer is loaded while tuning, and progress counts every unit of every stage."""
        loaded, seen = {}, {}

        def look(stage: str, step: int, total: int) -> None:
            loaded.setdefault(stage, []).append(set(work.backbone._parts))
            seen.setdefault(stage, []).append((step, total))

        work = Workspace(Store(tmp_path / "store"), params, progress=look)
        again = transfer(work, clip)
        assert again.made() == set(stages.STAGES)
        assert again.digests() == done.digests()
        assert all(parts == {"transformer"} for name in ("heads", "spatial", "temporal") for parts in loaded[name])
        assert all(parts == {"transformer", "vae"} for parts in loaded["render"])
        units = {"ingest": 18, "heads": 1, "spatial": 3, "temporal": 3, "render": 4, "evaluate": 1}
        assert seen == {stage: [(i + 1, total) for i in range(total)] for stage, total in units.items()}

    @pytest.mark.parametrize("stage", ["heads", "spatial", "temporal"])
    def test_each_stage_alone_lets_go_of_what_it_does_not_need(self, store, done, params, clip, stage):
        loaded = []
        work = Workspace(store, params, lambda *_: loaded.append(set(work.backbone._parts)), frozenset({stage}))
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
                    transformer, heads, latents, caption[None], params.temporal, params.sampling, 17, seed=0,
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
        assert not again.artifact.cached and again.baseline.cached
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
        assert all(result.baseline.cached for result in again.render)

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


class TestSampling:
    def test_pixel_samples_before_encoding(self, store, params, clip, backbone, done):
        work = Workspace(store, changed(params, sampling={"mode": "pixel"}))
        found = transfer(work, clip)
        assert found.made() == {"ingest", "temporal", "render", "evaluate"}  # heads and looks see the same frames
        frames = load_file(found.ingest.file("frames.safetensors"))["frames"].numpy()
        sampled = load_file(found.ingest.file("sampled.safetensors"))["sampled"]
        assert sampled.shape == (2, 4, 3, 4, 4)
        for phase in range(2):
            expected = backbone.encode_video(frames[sampled_indices(17, 9, phase / 2)])
            assert torch.equal(sampled[phase], expected)
        phases = tune(Workspace(store, changed(params, sampling={"mode": "pixel", "phases": 1})), clip)
        assert [artifact.cached for artifact in phases] == [False, True, True, False]

    def test_dense_sees_all_frames(self, store, params, clip, done):
        found = tune(Workspace(store, changed(params, sampling={"mode": "dense"})), clip)
        assert [artifact.cached for artifact in found] == [True, True, True, False]
        assert found[3].content_digest != done.temporal.content_digest


class TestAppearanceImages:
    def test_give_the_looks_and_leave_the_motion_to_the_clip(self, store, params, clip, done, backbone, tmp_path):
        images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        for index, image in enumerate(images):
            write_image(tmp_path / f"{index}.png", image)
        work = Workspace(store, params)
        found = tune(work, clip.model_copy(update={"appearance_images": tmp_path}))
        assert [artifact.cached for artifact in found] == [False, True, False, False]
        single = load_file(found[0].file("single.safetensors"))["single"]
        expected = torch.stack([backbone.encode_video(image[None]) for image in images])
        assert torch.equal(single, expected)
        assert found[0].digest("dense.safetensors") == done.ingest.digest("dense.safetensors")
        (tmp_path / "0.png").unlink()
        assert not stages.ingest(work, clip.model_copy(update={"appearance_images": tmp_path})).cached

    def test_must_be_a_folder(self, workspace, clip, tmp_path):
        with pytest.raises(VideoError, match="is no folder; give a folder of images"):
            stages.ingest(workspace, clip.model_copy(update={"appearance_images": tmp_path / "absent"}))


class TestHeadsOfTheBackbone:
    def test_serve_every_clip(self, store, params, clip, done):
        scope = {"scope": "backbone", "scope_clips": [str(clip.video)]}
        work = Workspace(store, changed(params, heads=scope))
        found = stages.heads(work, clip, done.ingest)
        assert not found.cached
        other = clip.model_copy(update={"start": 0.5, "caption": "another", "clip": "other"})
        ingested = stages.ingest(work, other)
        again = stages.heads(work, other, ingested)
        assert not ingested.cached and again.cached and again.path == found.path

    def test_average_over_the_clips(self, store, params, clip, sample_video, tmp_path):
        frames, _ = read_frames(sample_video)
        write_video(tmp_path / "reversed.mp4", frames[::-1].copy(), 8)
        maps = []
        for videos in ([sample_video], [tmp_path / "reversed.mp4"], [sample_video, tmp_path / "reversed.mp4"]):
            scope = {"scope": "backbone", "scope_clips": [str(video) for video in videos]}
            work = Workspace(store, changed(params, heads=scope))
            artifact = stages.heads(work, clip, stages.ingest(work, clip))
            maps.append(load_head_map(artifact.file("heads.parquet")).spatial)
        assert np.allclose(maps[2], (maps[0] + maps[1]) / 2, atol=1e-12)
        assert not np.allclose(maps[0], maps[1], atol=1e-6)

    def test_need_clips(self, store, params, clip, done):
        work = Workspace(store, changed(params, heads={"scope": "backbone"}))
        with pytest.raises(EffiVMTError, match=r"heads\.scope_clips is empty"):
            stages.heads(work, clip, done.ingest)


class TestKill:
    @pytest.mark.parametrize("stage", ["spatial", "temporal"])
    def test_a_killed_stage_goes_on_and_ends_with_the_same_bytes(self, store, done, params, clip, tmp_path, stage):
        own, steps = Store(tmp_path / "store"), []

        def die(at: str, step: int, total: int) -> None:
            if (at, step) == (stage, 2):
                raise KeyboardInterrupt

        work = Workspace(own, params, progress=die)
        with pytest.raises(KeyboardInterrupt):
            tune(work, clip)
        assert not (own.root / stage).exists() and len(list((own.root / "scratch").iterdir())) == 1
        work.progress = lambda at, step, total: steps.append((at, step))  # the same process goes on
        again = tune(work, clip)
        assert [step for at, step in steps if at == stage] == [3]
        whole = (done.ingest, done.heads, done.spatial, done.temporal)
        assert [artifact.content_digest for artifact in again] == [artifact.content_digest for artifact in whole]
        assert not list((own.root / "scratch").iterdir())

    def test_what_was_rendered_stays(self, params, clip, tmp_path, done):
        own = Store(tmp_path / "store")

        def die(at: str, step: int, total: int) -> None:
            if (at, step) == ("render", 3):  # in the second of two videos
                raise KeyboardInterrupt

        work = Workspace(own, params, progress=die)
        adapter = done.temporal.path / "adapter"
        with pytest.raises(KeyboardInterrupt):
            stages.render(work, clip.prompts, adapter)
        work.progress = lambda *_: None
        again = stages.render(work, clip.prompts, adapter)
        cached = [artifact.cached for result in again for artifact in (result.artifact, result.baseline)]
        assert cached == [True, False]


class TestErrors:
    def test_a_missing_video_is_named(self, workspace, clip):
        with pytest.raises(VideoError, match=r"absent\.mp4 does not exist or is no file"):
            stages.ingest(workspace, clip.model_copy(update={"video": Path("absent.mp4")}))

    def test_a_short_video_is_no_clip(self, workspace, clip):
        with pytest.raises(VideoError):
            stages.ingest(workspace, clip.model_copy(update={"start": 3.0}))

    def test_a_damaged_adapter_is_never_rendered(self, workspace, clip, done, tmp_path):
        folder = tmp_path / "adapter"
        folder.mkdir()
        for path in (done.temporal.path / "adapter").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "temporal.safetensors").write_bytes(b"damage")
        with pytest.raises(AdapterError, match=r"temporal\.safetensors is damaged"):
            stages.render(workspace, clip.prompts, folder)
