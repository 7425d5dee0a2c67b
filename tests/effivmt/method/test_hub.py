"""A backbone by hub id: refusals by name before any weights are fetched, revisions, and digests without weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from effivmt.config import BackboneParams, IngestParams, Params
from effivmt.errors import BackboneError, ParamsError
from effivmt.method.backbone_folder import BackboneFolder, check_frame_size, find_backbone
from effivmt.pipeline.workspace import open_workspace
from effivmt.store.memo import read_memo

NAME = "somebody/wan"
FIRST, SECOND = "1" * 40, "2" * 40


def find(revision: str | None = None, memo: Path | None = None, *, weights: bool = True) -> BackboneFolder:
    return find_backbone(BackboneParams(path=NAME, revision=revision), memo, weights=weights)


@pytest.fixture
def folder(backbone_folder, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(backbone_folder, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def index(**changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "model_index.json", **changes)


def config(part: str, **changes: object) -> Callable[[Path], None]:
    file = "scheduler_config.json" if part == "scheduler" else "config.json"
    return lambda folder: edit(folder / part / file, **changes)


UNFIT = {
    "has a second transformer": index(transformer_2=["diffusers", "WanTransformer3DModel"]),
    "is a WanImageToVideoPipeline but has a transformer that takes 4": index(_class_name="WanImageToVideoPipeline"),
    "is a WanPipeline with an image_encoder": index(image_encoder=["transformers", "CLIPVisionModel"]),
    "is a WanVACEPipeline; expected a WanPipeline": index(_class_name="WanVACEPipeline"),
    "has a transformer that expects an image": config("transformer", image_dim=1280),
    "has a transformer of class WanVACETransformer3DModel": config(
        "transformer", _class_name="WanVACETransformer3DModel"
    ),
    "takes 36 channels (in_channels) and gives 4 (out_channels) and expects an image": config(
        "transformer", in_channels=36
    ),
    "has 16 (z_dim), and all three must be equal": config("vae", z_dim=16),
    "latents_mean has not z_dim 4 numbers": config("vae", latents_mean=[0.0]),
    "texts of 4096 channels (text_dim), but its text encoder gives 16 (d_model)": config("transformer", text_dim=4096),
    "says scale_factor_spatial 16 but scales by 8": config("vae", scale_factor_spatial=16),
    "packs 2 frames into a latent frame, expected 4": config(
        "vae", temperal_downsample=[False, True], scale_factor_temporal=2
    ),
    "has patch_size [2, 2, 2]": config("transformer", patch_size=[2, 2, 2]),
    "has a DDIMScheduler with prediction_type epsilon; expected a scheduler of a flow model": config(
        "scheduler", _class_name="DDIMScheduler", prediction_type="epsilon"
    ),
    "has a UniPCMultistepScheduler of 500 timesteps; expected 1000": config("scheduler", num_train_timesteps=500),
}


@pytest.mark.parametrize("told", UNFIT)
def test_what_does_not_fit_is_named_before_any_weights_are_fetched(hub, folder, told):
    UNFIT[told](folder)
    hub.publish(NAME, folder, FIRST)
    with pytest.raises(BackboneError) as caught:
        find()
    assert str(caught.value).startswith(f"backbone {NAME} ") and told in str(caught.value)
    assert hub.weights == [] and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ingest": {"height": 40}}, r"ingest\.height is 40, which is not a multiple of 16"),
        ({"render": {"guidance_scale_2": 3}}, r"render\.guidance_scale_2 is 3.* has one transformer"),
        ({"backbone": {"device": "cuda"}}, r"backbone\.device is 'cuda' but no GPU is visible"),
    ],
)
def test_settings_that_do_not_fit_are_named_before_any_weights_are_fetched(
    hub, backbone_folder, tmp_path, monkeypatch, changes, told
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    hub.publish(NAME, backbone_folder, FIRST)
    params = Params.model_validate(changes | {"backbone": {"path": NAME} | changes.get("backbone", {})})
    with pytest.raises(ParamsError, match=told):
        open_workspace(params, tmp_path / "store")
    assert hub.weights == []


def test_the_commit_and_the_digests_are_those_of_the_folder(hub, backbone, backbone_folder):
    hub.publish(NAME, backbone_folder, FIRST)
    found = find()
    assert found.facts == backbone.found.facts | {"id": NAME, "commit": FIRST}
    assert found.digest == backbone.digest and len(hub.weights) == 3
    assert "commit" not in backbone.found.facts


def test_without_weights_the_digests_are_those_that_the_hub_lists(hub, backbone, backbone_folder, monkeypatch):
    hub.publish(NAME, backbone_folder, FIRST)
    found = find(weights=False)
    assert hub.weights == []
    assert (found.digest, found.transformer_digests) == (backbone.digest, backbone.found.transformer_digests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError, match=f"the weights of {NAME} are not on this machine, .* hf download {NAME}"):
        find(FIRST, weights=False)
    with pytest.raises(BackboneError, match=f"backbone {NAME} is no folder here and cannot be fetched"):
        find()


def test_a_new_commit_with_equal_weights_is_the_same_backbone(hub, folder, tmp_path):
    hub.publish(NAME, folder, FIRST, "v1")
    memo = tmp_path / "memo.json"
    first = find(memo=memo)
    known = read_memo(memo)
    second = Path(shutil.copytree(folder, tmp_path / "second"))
    (second / "README.md").write_text("a model card")
    hub.publish(NAME, second, SECOND)
    found = find(memo=memo)
    assert found == BackboneFolder(**vars(first) | {"commit": SECOND, "path": found.path})
    assert read_memo(memo) == known, "the same bytes are digested once"
    for revision, commit in (("v1", FIRST), (FIRST, FIRST), ("main", SECOND)):
        assert find(revision).commit == commit


def test_a_revision_pins_what_was_fetched_without_a_connection(hub, backbone_folder, monkeypatch):
    hub.publish(NAME, backbone_folder, FIRST, "v1")
    found = find("v1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find("v1") == find(FIRST) == found
    with pytest.raises(BackboneError, match="cannot be fetched"):
        find("v2")


def test_a_revision_that_is_not_there_is_named(hub, backbone_folder):
    hub.publish(NAME, backbone_folder, FIRST)
    with pytest.raises(BackboneError, match="somebody/wan has no revision 'v9' on the hub; give a commit, branch or"):
        find("v9")
    with pytest.raises(ParamsError, match=r"backbone\.revision is 'v9' but backbone\.path .* is a folder"):
        find_backbone(BackboneParams(path=str(backbone_folder), revision="v9"))


def test_frames_divide_into_the_backbones_tokens(backbone, folder):
    check_frame_size(backbone.found, IngestParams(height=32, width=48))
    config("transformer", patch_size=[1, 4, 2])(folder)
    found = find_backbone(BackboneParams(path=str(folder)))
    assert found.shape.pixel_step == (32, 16)
    with pytest.raises(ParamsError, match=r"ingest\.height is 80, which is not a multiple of 32 .*; the nearest is 64"):
        check_frame_size(found, IngestParams(height=80, width=48))
    with pytest.raises(ParamsError, match=r"ingest\.width is 40, which is not a multiple of 16"):
        check_frame_size(found, IngestParams(height=64, width=40))


def test_a_shard_that_an_index_lists_must_be_there(folder):
    part = folder / "transformer"
    listed = {"weight_map": {"a": "diffusion_pytorch_model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (part / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(listed), encoding="utf-8")
    with pytest.raises(BackboneError, match=r"its transformer .*lacks model-00002-of-00002\.safetensors"):
        find_backbone(BackboneParams(path=str(folder)))
