"""Previews are drawn while a clip is tuned, and change nothing of what it becomes."""

from dataclasses import replace

import numpy as np
from staging import transfer

from effivmt.media.video import read_frames, write_video
from effivmt.pipeline.api import transfer as transfer_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store


def previewed(params, previews: int):
    render = params.render.model_copy(update={"previews": previews})
    return params.model_copy(update={"render": render})


def test_previews_come_at_even_distances_and_the_results_stay(store, done, params, clip, tmp_path):
    seen = []
    params = previewed(params, 2)
    work = Workspace(Store(tmp_path / "store"), params, on_preview=lambda *args: seen.append(args))
    again = transfer(work, clip)
    assert again.digests() == done.digests() and again.made() == set(done.digests()) - {"render_0"} | {"render"}
    assert [(step, steps) for _, step, steps in seen] == [(1, 3), (2, 3)]
    size = params.ingest
    assert all(frames.shape == (size.num_frames, size.height, size.width, 3) for frames, _, _ in seen)
    assert not np.array_equal(seen[0][0], seen[1][0])  # it was tuned meanwhile
    assert transfer(work, clip).made() == set() and len(seen) == 2


def test_a_preview_is_the_adapter_of_that_step(params, clip, tmp_path):
    """Of the step before the last, with the appearance LoRA at full strength and all sampling steps."""
    seen = []
    temporal = params.temporal.model_copy(update={"learning_rate": 1e-12})  # the last step moves nothing
    render = params.render.model_copy(update={"previews": 9, "appearance_strength": 1.0})
    params = params.model_copy(update={"temporal": temporal, "render": render})
    work = Workspace(Store(tmp_path / "store"), params, on_preview=lambda *args: seen.append(args[0]))
    made = transfer(work, clip)
    write_video(tmp_path / "preview.mp4", seen[-1], params.ingest.fps)
    with made.render[0].artifact.opened("video.mp4") as path:
        frames = [read_frames(file)[0].astype(int) for file in (path, tmp_path / "preview.mp4")]
    assert np.abs(frames[0] - frames[1]).mean() < 1


def test_files_and_lines(workspace, params, clip, tmp_path):
    lines = []
    work = replace(workspace, params=previewed(params, 1))
    work.callback.on_notice = lines.append
    _, outputs = transfer_clip(work, clip, tmp_path / "out")
    assert [path.name for path in outputs.previews.iterdir()] == ["step-1.mp4"]
    assert lines == [f"preview after 1 of 3 steps: {outputs.previews / 'step-1.mp4'}"]
    plain, _ = transfer_clip(replace(work, params=params), clip, tmp_path / "plain")
    assert plain.cached and not (tmp_path / "plain" / clip.clip / "previews").exists()
