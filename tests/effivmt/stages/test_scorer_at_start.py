"""The scorer is found before a run; without one that fits the metrics of CLIP are left out, and nothing else."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from staging import changed, transfer

from effivmt.errors import BackboneError
from effivmt.evaluation.scorer_folder import find_scorer
from effivmt.evaluation.similarity import ClipScorer
from effivmt.pipeline.transfer import run_clip
from effivmt.pipeline.workspace import Workspace, open_workspace
from effivmt.pipeline.write_outputs import write_outputs
from effivmt.store.digests import sha256_tree

NAME, COMMIT = "somebody/clip", "1" * 40
OF_CLIP = {"text_similarity", "temporal_consistency", "reference_resemblance", "appearance_leakage"}


@pytest.fixture
def folder(scorer_folder, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(scorer_folder, tmp_path / "copy"))


def metrics(work: Workspace, clip) -> set[str]:
    rows = json.loads(transfer(work, clip).evaluate.file("metrics.json").read_text())
    return {name for row in rows for name in row["adapter"]}


@pytest.mark.parametrize("name", ["clip-tiny", "no/such/folder"])
def test_without_a_scorer_that_fits_only_its_metrics_are_left_out(store, params, clip, name, done, tmp_path):
    work = Workspace(store, changed(params, evaluate={"scorer": name}))
    told = "knows the clips of wan-tiny alone" if name == "clip-tiny" else "cannot be fetched as a hub id"
    assert work.scorer.folder is None and told in work.scorer.fault and "\n" not in work.scorer.fault
    whole = json.loads(done.evaluate.file("metrics.json").read_text())[0]["adapter"].keys()
    assert metrics(work, clip) == whole - OF_CLIP
    assert write_outputs(work, run_clip(work, clip), tmp_path / "out").report.is_file()


def test_the_scorer_of_a_hub_id_is_fetched_at_the_start(store, params, clip, hub, scorer_folder):
    hub.publish(NAME, scorer_folder, COMMIT)
    params = changed(params, evaluate={"scorer": NAME})
    dry = open_workspace(params, store.root, weights=False)
    digest = dry.scorer.folder.digest
    assert hub.weights == []
    work = open_workspace(params, store.root)
    assert work.scorer.folder.digest == digest and hub.weights == ["model.safetensors"]
    assert metrics(work, clip) >= OF_CLIP


def test_another_kind_of_model_is_named_before_its_weights_are_fetched(hub, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    hub.publish(NAME, folder, COMMIT)
    with pytest.raises(BackboneError, match="holds a model of type siglip"):
        find_scorer(NAME)
    assert hub.weights == []


def test_a_folder_is_checked_by_its_headers(folder, scorer_folder):
    assert find_scorer(str(scorer_folder)).digest == sha256_tree(scorer_folder)
    weights = load_file(folder / "model.safetensors")
    weights.pop("visual_projection.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lacks weights visual_projection\.weight; give a folder saved by"):
        find_scorer(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="lacks weights text_projection"):
        find_scorer(str(folder))


def test_weights_that_are_unknown_are_an_error_but_not_the_positions_that_openais_file_has(folder):
    weights = load_file(folder / "model.safetensors")
    for half in ("text_model", "vision_model"):
        weights[f"{half}.embeddings.position_ids"] = weights["logit_scale"].new_zeros(1, 4).long()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    ClipScorer(folder)
    weights["other.weight"] = weights["logit_scale"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"has unknown 1 weights \(other\.weight"):
        ClipScorer(folder)


def test_the_image_processors_file_of_openai_is_read(folder):
    """Its sizes are numbers."""
    old = {"crop_size": 32, "do_center_crop": True, "do_normalize": True, "do_resize": True, "size": 32, "resample": 3}
    old |= {"feature_extractor_type": "CLIPFeatureExtractor"}
    old |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    for file in folder.glob("*processor*"):
        file.unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(old))
    assert ClipScorer(folder).processor.crop_size["height"] == 32
