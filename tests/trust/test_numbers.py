"""Numbers that are not finite, out of bounds or not measurable: refused by name, or shown as such."""

import copy
import json

import numpy as np
import pytest
import torch
from rich.console import Console
from trial import effivmt

from effivmt.config import IngestParams, RenderParams
from effivmt.errors import BackboneError, EffiVMTError, ParamsError
from effivmt.evaluation.measure import load_metric_models, measure
from effivmt.evaluation.metrics import METRICS, mean_metrics
from effivmt.media.video import write_video
from effivmt.method.adapter import Adapter
from effivmt.method.heads import HeadMap
from effivmt.method.rendering import render
from effivmt.params_file import load_params
from effivmt.pipeline import stages
from effivmt.pipeline.tables import write_metrics
from effivmt_flows.cli.tables import metrics_table

BOUNDED = (
    "spatial.learning_rate", "temporal.learning_rate", "temporal.motion_weight", "temporal.weight_decay",
    "temporal.flow_shift", "heads.alpha", "render.appearance_strength", "render.motion_strength",
    "render.guidance_scale", "render.flow_shift", "ingest.fps",
)  # fmt: skip
SIZE = IngestParams(num_frames=5, height=32, width=32)


@pytest.mark.parametrize("field", BOUNDED)
def test_params_have_bounds(field):
    for value in (".inf", "-.inf", ".nan", "1e30", "-0.5"):
        with pytest.raises(ParamsError, match=f"params are wrong: {field}: "):
            load_params("tiny", [f"{field}={value}"])


@pytest.mark.parametrize(
    "option", [("--motion", "1e30"), ("--motion", "nan"), ("--appearance", "-1"), ("--motion", "4.1")]
)
def test_strengths_of_a_rendering_have_bounds(tmp_path, option):
    ended = effivmt("render", tmp_path, "--prompt", "a", "--out", tmp_path / "a.mp4", *option)
    assert ended.code == 2 and f"{option[0]} is " in ended.fault and "a strength from 0 to 4" in ended.fault


def of_weight(backbone, value: float) -> Adapter:
    """An adapter of one motion LoRA, all of its weights the same."""
    name, width = "transformer.blocks.0.attn1.to_v.lora", 48
    weights = {f"{name}_A.weight": torch.full((2, width), value), f"{name}_B.weight": torch.full((width, 2), value)}
    scores = np.zeros((2, 4))
    return Adapter(
        {}, weights, HeadMap(scores, scores, scores == 0), {"backbone": {"id": "a", "digest": backbone.digest}}
    )


def test_a_rendering_that_is_not_finite_is_refused(backbone):
    prompts = backbone.encode_texts(["a", "b"])
    for value in (1e20, -1e30):
        with pytest.raises(
            EffiVMTError, match=r"rendering diverged: the latents are not finite after step 1 of 2; lower render\."
        ):
            render(backbone, of_weight(backbone, value), *prompts, params=RenderParams(steps=2), size=SIZE, seed=0)


def test_frames_that_are_not_finite_or_all_black_are_refused(backbone, monkeypatch):
    prompts = backbone.encode_texts(["a", "b"])
    for value, fault in ((float("nan"), "the decoded frames are not finite"), (-1e9, "every pixel is black")):
        vae = copy.deepcopy(backbone.vae)
        torch.nn.init.constant_(vae.decoder.conv_out.bias, value)
        monkeypatch.setitem(backbone._parts, "vae", vae)
        with pytest.raises(EffiVMTError, match=f"rendering diverged: {fault}"):
            render(backbone, None, *prompts, params=RenderParams(steps=1), size=SIZE, seed=0)


def test_a_backbone_that_is_not_finite_is_named_by_the_stage_that_meets_it(workspace, clip, monkeypatch):
    ingested = stages.ingest(workspace, clip)
    negative = workspace.params.render.negative_prompt
    stages.embed_texts(workspace, [clip.caption, *clip.prompts, negative])  # it releases what else is loaded
    work, parts = workspace, workspace.backbone._parts
    vae, transformer = copy.deepcopy(work.backbone.vae), copy.deepcopy(work.backbone.transformer)
    torch.nn.init.constant_(vae.encoder.conv_out.bias, float("nan"))
    torch.nn.init.constant_(transformer.patch_embedding.bias, float("nan"))
    monkeypatch.setitem(parts, "vae", vae)
    with pytest.raises(BackboneError, match=r"its autoencoder gives latents of zigzag\.mp4 that are not finite"):
        stages.ingest(work, clip.model_copy(update={"start": 0.5}))
    monkeypatch.setitem(parts, "transformer", transformer)
    with pytest.raises(BackboneError, match=r"its attention is not finite at noise level 0\.5"):
        stages.heads(work, clip, ingested)


def test_nothing_to_track_is_not_measurable(tmp_path, scorer_folder, sample_video):
    plain = np.full((17, 32, 32, 3), 90, np.uint8)
    write_video(tmp_path / "plain.mp4", plain, 8)
    ended = effivmt(
        "evaluate",
        sample_video,
        tmp_path / "plain.mp4",
        "--prompt",
        "a",
        "--json",
        "--set",
        f"evaluate.scorer={scorer_folder}",
    )
    assert ended.code == 0, ended.err
    metrics = json.loads(ended.out)
    unknown = {name for name, value in metrics.items() if value is None}
    assert unknown == {name for name in METRICS if "fidelity" in name} | {"trajectory_error", "motion_amount"}
    assert not unknown & mean_metrics([metrics]).keys()
    console = Console(width=120, record=True)
    console.print(metrics_table("a", {"value": metrics}))
    assert console.export_text().count("–") == len(unknown)
    (tmp_path / "evaluate/a").mkdir(parents=True)
    (tmp_path / "evaluate/a/metrics.json").write_text(json.dumps([{"prompt": "a", "seed": 0, "adapter": metrics}]))
    write_metrics(tmp_path / "evaluate", tmp_path / "metrics", ["a"])
    assert json.loads((tmp_path / "metrics/mean.json").read_text()).keys() == metrics.keys() - unknown | {
        "without_adapter"
    }
    models = load_metric_models(scorer_folder, None)
    assert measure(plain, plain, "a", models)["sharpness"] is None
    models.scorer.model.visual_projection.weight.data.fill_(float("nan"))
    with pytest.raises(BackboneError, match="gives a text_similarity that is not finite"):
        measure(plain, plain, "a", models)
