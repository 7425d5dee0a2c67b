"""Sampling, images of the looks, heads of the backbone; a killed stage goes on; errors name their cause."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from staging import ProgressCallback, changed, transfer, tune

from effivmt.errors import AdapterError, DamageError, EffiVMTError, VideoError
from effivmt.media.video import read_frames, write_image, write_video
from effivmt.method.adapter import load_adapter
from effivmt.method.heads import load_head_map
from effivmt.method.rope import sampled_indices
from effivmt.pipeline import stages
from effivmt.pipeline.transfer import adapter_folder
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store


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

    def test_by_the_error_of_their_output_need_no_alpha(self, store, params, clip, done):
        found = []
        for alpha in (1.25, 4.0):
            work = Workspace(store, changed(params, heads={"criterion": "output_error", "alpha": alpha}))
            found.append(stages.heads(work, clip, done.ingest))
        heads = load_head_map(found[0].file("heads.parquet"))
        assert found[1].cached and found[1].path == found[0].path != done.heads.path
        assert np.array_equal(heads.is_temporal, heads.spatial < heads.temporal)
        assert 0 < heads.spatial.min() < 1 and not np.allclose(heads.spatial, heads.temporal)

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

        work = Workspace(own, params, ProgressCallback(die))
        with pytest.raises(KeyboardInterrupt):
            tune(work, clip)
        assert not (own.root / stage).exists() and len(list((own.root / "scratch").iterdir())) == 1
        work.callback.function = lambda at, step, total: steps.append((at, step))  # the same process goes on
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

        work = Workspace(own, params, ProgressCallback(die))
        adapter = done.temporal.path / "adapter"
        with pytest.raises(KeyboardInterrupt):
            stages.render(work, clip.prompts, adapter)
        work.callback.function = lambda *_: None
        again = stages.render(work, clip.prompts, adapter)
        cached = [artifact.cached for result in again for artifact in (result.artifact, result.without_adapter)]
        assert cached == [True, False]


class TestErrors:
    def test_a_missing_video_is_named(self, workspace, clip):
        with pytest.raises(VideoError, match=r"absent\.mp4 does not exist or is no file"):
            stages.ingest(workspace, clip.model_copy(update={"video": Path("absent.mp4")}))

    def test_a_video_of_fewer_than_five_frames_is_no_clip(self, workspace, clip):
        with pytest.raises(VideoError, match="too short"):
            stages.ingest(workspace, clip.model_copy(update={"start": 4.0}))

    def test_an_adapter_that_another_process_made_again_meanwhile_is_read_again(self, done):
        """The error is that of damage, which the work is tried again after, though the folder is whole by then."""
        with pytest.raises(DamageError, match="was damaged while it was read"), adapter_folder(done.temporal) as folder:
            (folder / "README.md").rename(folder / "moved")
            try:
                load_adapter(folder)
            finally:
                (folder / "moved").rename(folder / "README.md")

    def test_a_damaged_adapter_is_never_rendered(self, workspace, clip, done, tmp_path):
        folder = tmp_path / "adapter"
        folder.mkdir()
        for path in (done.temporal.path / "adapter").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "temporal.safetensors").write_bytes(b"damage")
        with pytest.raises(AdapterError, match=r"temporal\.safetensors is damaged"):
            stages.render(workspace, clip.prompts, folder)
