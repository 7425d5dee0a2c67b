"""The stage mask: what it leaves of a clip, what follows from it, and that a clip without a choice has none."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from staging import changed

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import ParamsError, VideoError
from effivmt.media.video import write_video
from effivmt.method.adapter import load_adapter
from effivmt.pipeline import stages
from effivmt.pipeline.excerpt import Excerpt
from effivmt.pipeline.plan import plan_clip
from effivmt.pipeline.stages.motion_mask import on_clip
from effivmt.pipeline.transfer import run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.pipeline.write_outputs import write_outputs
from effivmt.pretrain.examinations.parts import draw_parts
from effivmt.store.store import Store


@pytest.fixture
def chosen(clip: Clip) -> Clip:
    """The sample clip, of whose motion that of the object is wanted."""
    return clip.model_copy(update={"prompts": clip.prompts[:1], "motion_of": "object"})


def test_stage_3_and_the_metrics_see_the_chosen_motion_alone(workspace, chosen, tmp_path):
    assert [step.stage for step in plan_clip(workspace, chosen)] == ["ingest", "mask", *stages.STAGES[1:]]
    result = run_clip(workspace, chosen)
    assert [run.stage for run in result.runs] == ["ingest", "mask", *stages.STAGES[1:]]
    masked = result.masked
    weights = load_file(masked.file("weights.safetensors"))["weights"]
    dense = load_file(masked.file("dense.safetensors"))["dense"]
    assert weights.shape == (1, 1, *dense.shape[2:]) and 0 <= weights.min() <= weights.max() == 1
    assert result.motion.inputs["clip"] == masked.digest("dense.safetensors")
    assert result.motion.inputs["weights"] == masked.digest("weights.safetensors")
    assert result.evaluated.inputs["clip"] == masked.digest("frames.safetensors")
    region = load_file(masked.file("region.safetensors"))["region"]
    assert region.shape == (1, 1, *dense.shape[2:]) and 0 == region.min() < region.max() == 1
    assert result.motion.inputs["region"] == masked.digest("region.safetensors")
    assert torch.equal(load_adapter(result.motion.folder("adapter")).region, region)
    assert all(step.action == "hit" for step in plan_clip(workspace, chosen))
    outputs = write_outputs(workspace, result, tmp_path / "out")
    assert outputs.mask.is_file() and "The moving object alone" in outputs.report.read_text(encoding="utf-8")

    whole = chosen.model_copy(update={"motion_of": "all"})
    again = run_clip(workspace, whole)
    assert [run.stage for run in again.runs] == list(stages.STAGES) and again.masked is None
    assert {"ingest", "heads", "spatial"} == {run.stage for run in again.runs if run.cached}
    assert again.motion.inputs.keys() == {"clip", "caption", "heads", "spatial"}  # as before there was a choice
    assert "adapter/region.safetensors" not in again.motion.files
    write_outputs(workspace, again, tmp_path / "out")
    assert not outputs.mask.exists() and "object alone" not in outputs.report.read_text(encoding="utf-8")


def test_each_phase_of_sampled_frames_has_its_weights(tmp_path, params: Params, chosen):
    work = Workspace(Store(tmp_path / "store"), changed(params, sampling={"mode": "pixel"}))
    masked = stages.mask(work, chosen, stages.ingest(work, chosen))
    sampled = load_file(masked.file("sampled.safetensors"))["sampled"]
    assert load_file(masked.file("weights.safetensors"))["weights"].shape == (2, 1, *sampled.shape[2:])
    region = load_file(masked.file("region.safetensors"))["region"]
    assert region.shape == (1, 1, 5, *sampled.shape[3:])  # of the whole clip


def test_a_camera_has_no_region(tmp_path, params: Params, chosen):
    part = next(part for part in draw_parts(17) if part.name == "camera")
    write_video(tmp_path / "pan.mp4", part.frames, 8)
    work = Workspace(Store(tmp_path / "store"), changed(params, ingest={"height": 64, "width": 64}))
    clip = chosen.model_copy(update={"video": tmp_path / "pan.mp4", "motion_of": "camera"})
    assert "region.safetensors" not in stages.mask(work, clip, stages.ingest(work, clip)).files


def test_a_choice_that_cannot_be_met_ends_before_any_tuning(workspace, chosen):
    for choice, error, said in [
        ({"motion_of": "camera"}, VideoError, "no camera motion was found"),
        ({"region": (50, 50, 30, 10)}, ParamsError, "region 50,50,30,10 reaches out of the video, which has 64x64"),
        ({"region": (0.85, 0.4, 0.1, 0.1)}, VideoError, "nothing can be tracked in the region"),
    ]:
        with pytest.raises(error, match=said):
            run_clip(workspace, chosen.model_copy(update=choice))
    assert not {"heads", "spatial", "temporal"} & {path.name for path in workspace.store.root.iterdir()}


def test_a_region_is_of_the_video_as_shown():
    excerpt = Excerpt(17, 17, 8, 0, 2, 2, width=1920, height=1080, crop_width=1080, crop_height=1080)
    assert on_clip((420, 0, 540, 270), excerpt) == (0, 0, 0.5, 0.25)
    assert on_clip((0.5, 0.5, 0.5, 0.5), excerpt) == (0.5, 0.5, 0.5, 0.5)  # cut to what was taken
    assert np.allclose(on_clip((960, 540, 108, 108), excerpt), (0.5, 0.5, 0.1, 0.1))
    with pytest.raises(
        ParamsError, match="region 0,0,400,1080 lies outside of the clip, which is the middle 1080x1080"
    ):
        on_clip((0, 0, 400, 1080), excerpt)


def test_a_clip_without_a_choice_is_recorded_as_before(clip):
    assert not {"motion_of", "region"} & clip.model_dump().keys()
    assert clip.model_copy(update={"region": (0, 0, 8, 8)}).model_dump(mode="json")["region"] == [0, 0, 8, 8]
