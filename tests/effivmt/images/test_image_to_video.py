"""Transfers on the layouts of Wan I2V, where an image always stands beside the noise; stock diffusers loads all."""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline
from stock_images import stock, video

from effivmt.benchmark import peer_stages
from effivmt.benchmark.baselines.motion_director import MotionDirectorParams
from effivmt.config import BackboneParams, Params
from effivmt.errors import BackboneError, ParamsError
from effivmt.method.adapter import fused, load_adapter
from effivmt.method.backbone import Backbone
from effivmt.method.backbone_folder import find_backbone
from effivmt.method.dual_path import dual_path, hold_text
from effivmt.method.heads import HeadMap
from effivmt.method.prediction import predict_velocity
from effivmt.method.rendering import render
from effivmt.pipeline.stages.first_frame import fitted
from effivmt.pipeline.transfer import TransferResult, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.planning.choosing import choose
from effivmt.planning.stages import STAGES, StageCounter
from effivmt.store.store import Store

VERSIONS = ("2.1", "2.2")


@pytest.fixture(scope="module")
def works(tmp_path_factory, i2v_params) -> dict[str, Workspace]:
    store = Store(tmp_path_factory.mktemp("i2v") / "store")
    return {version: Workspace(store, params) for version, params in i2v_params.items()}


@pytest.fixture(scope="module")
def done(works, animated) -> dict[str, TransferResult]:
    return {version: run_clip(work, animated) for version, work in works.items()}


class Calls(list):
    """The calls of transformers, as (inputs by name, output)."""

    def watch(self, transformer) -> None:
        transformer.register_forward_hook(lambda _, __, kwargs, out: self.append((kwargs, out[0])), with_kwargs=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_velocity_is_that_of_the_stock_pipeline(version, works, image):
    """From our own encoding of the image: the channels beside the noise, and what CLIP reads."""
    backbone, picture = works[version].backbone, fitted(works[version], image)
    pipeline, calls = stock(backbone.folder), Calls()
    for expert in backbone.experts:
        calls.watch(getattr(pipeline, expert.component))
    video(pipeline, picture, backbone.encode_texts(["a red square", "blur"]))
    first = backbone.first_frame(picture, 9)
    assert (first.embedding is None) == (version == "2.2") and first.predicted == slice(0, None)
    experts = set()
    for given, expected in calls:
        (expert,) = (it for it in backbone.experts if it.takes(float(given["timestep"][0]) / 1000))
        experts.add(expert)
        noised = given["hidden_states"][:, :4]
        with torch.no_grad():
            found = predict_velocity(
                backbone.transformer_of(expert), noised, given["timestep"], given["encoder_hidden_states"],
                expert=expert, first=first,
            )  # fmt: skip
        assert (found - expected).abs().max() <= 1e-5
    assert experts == set(backbone.experts)


@pytest.mark.parametrize("version", VERSIONS)
def test_exports_give_the_same_video_in_the_stock_pipeline(version, works, done, image):
    """By the code of the model card, and from the files for ComfyUI."""
    backbone, picture = works[version].backbone, fitted(works[version], image)
    folder = done[version].motion.path / "adapter"
    prompts = backbone.encode_texts(["a red square", "blur"])
    code = (folder / "README.md").read_text().split("```")[1].removeprefix("python\n")
    assert "WanImageToVideoPipeline.from_pretrained" in code
    namespace = {
        "WanImageToVideoPipeline": WanImageToVideoPipeline, "FOLDER": str(folder), "BACKBONE": str(backbone.folder)
    }  # fmt: skip
    exec(code, namespace)  # ours, from the folder that the test has just made
    card, files = namespace["pipe"], stock(backbone.folder)
    card.scheduler = files.scheduler
    for name in sorted(path.name for path in folder.glob("comfyui*.safetensors")):
        files.load_lora_weights(
            folder, weight_name=name, adapter_name="both", load_into_transformer_2="low_noise" in name
        )
    adapter = load_adapter(folder)
    with ExitStack() as merged:
        for expert, pair in zip(backbone.experts, (adapter, adapter.low_noise), strict=False):
            branches = {"temporal": (pair.temporal, 1.0)}
            merged.enter_context(fused(backbone.transformer_of(expert), branches))
        expected = video(backbone.image_pipeline(5.0), picture, prompts)
    plain = video(stock(backbone.folder), picture, prompts)
    for exported in (card, files):
        error = np.abs(video(exported, picture, prompts) - expected).max()
        print(f"{version}: max abs error {error:.1e}, change by the adapter {np.abs(plain - expected).max():.4f}")
        assert error <= 1e-5 and np.abs(plain - expected).max() > 1e-3
    size = works[version].params.ingest.model_copy(update={"num_frames": 9})
    settings = works[version].params.render.model_copy(update={"steps": 4, "motion_boundary": 0.0})
    found = render(backbone, adapter, *prompts, params=settings, size=size, seed=5, image=picture)
    assert np.abs(found - expected * 255.0).max() <= 0.51


def test_a_tuned_block_sees_the_image(works, image):
    """What the dual path computes from held text and image is what the stock blocks compute."""
    backbone, picture = works["2.1"].backbone, fitted(works["2.1"], image)
    transformer, first = backbone.transformer, backbone.first_frame(picture, 9)
    noised, text = torch.randn(2, 4, 3, 4, 4), backbone.encode_texts(["a red square"])[0][None]
    times, scores = torch.tensor([900.0, 300.0]), np.zeros((2, 4))
    with torch.no_grad():
        expected = predict_velocity(transformer, noised, times, text.expand(2, -1, -1), first=first)
        with dual_path(transformer, HeadMap(scores, scores, scores > 0)):
            hold_text(transformer, text, first.embedding)
            held = type(first)(first.latents, clean=False)
            found = predict_velocity(transformer, noised, times, text[:, :0], first=held)
    assert (found - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("version", VERSIONS)
def test_the_transfer_has_no_stage_2(version, done):
    curves = done[version].losses
    assert curves["spatial"] == {} and all(len(curve) == 3 for curve in curves["temporal"].values())
    facts = json.loads((done[version].motion.path / "adapter" / "adapter.json").read_text())
    assert facts["pipeline"]["image_to_video"] is True


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_counts_it(version, works):
    params, found = works[version].params, works[version].folder
    counter = StageCounter(found.path, params, found.shape.experts)
    costs = {stage: counter.cost(stage, choose(counter, 80)) for stage in STAGES}
    assert costs["spatial"].flops == 0 and all(costs[stage].flops > 0 for stage in ("heads", "temporal", "render"))


class TestRefusals:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_a_clip_without_an_image(self, version, works, animated):
        clip = animated.model_copy(update={"images": (), "prompts": ("a star",)})
        with pytest.raises(ParamsError, match=r"i2v-.* makes videos of images: give one for each prompt \(--image"):
            run_clip(works[version], clip)

    def test_fewer_text_tokens(self, i2v_2_1_folder, tmp_path):
        params = Params(backbone=BackboneParams(path=str(i2v_2_1_folder), max_sequence_length=32))
        with pytest.raises(ParamsError, match=r"max_sequence_length is 32 but backbone .* set it to 512"):
            _ = Workspace(Store(tmp_path), params).folder

    def test_a_peer(self, works, animated, done):
        with pytest.raises(BackboneError, match="makes videos of images but motion_director makes them of texts"):
            peer_stages.tune(
                works["2.1"], animated, done["2.1"].ingested, peer="motion_director", params=MotionDirectorParams()
            )

    @pytest.mark.parametrize(
        ("file", "changes", "told"),
        [
            ("model_index.json", {"_class_name": "WanPipeline"}, "is a WanPipeline with an image_encoder, which a"),
            ("transformer/config.json", {"in_channels": 9}, "takes 9 channels .* must be twice that and 4"),
            ("transformer/config.json", {"image_dim": 21}, r"images of 21 channels .* gives 20 \(hidden_size\)"),
            ("image_encoder/config.json", {"model_type": "vit"}, "image_encoder of type vit, expected a clip_vision"),
            (
                "image_processor/preprocessor_config.json",
                {"image_processor_type": "ViT"},
                "_processor of class ViT",
            ),
        ],
    )
    def test_a_folder(self, file, changes, told, i2v_2_1_folder, tmp_path):
        folder = Path(shutil.copytree(i2v_2_1_folder, tmp_path / "copy"))
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(config | changes))
        with pytest.raises(BackboneError, match=told):
            find_backbone(BackboneParams(path=str(folder)))

    def test_a_folder_without_its_encoder(self, i2v_2_1_folder, tmp_path):
        folder = Path(shutil.copytree(i2v_2_1_folder, tmp_path / "copy"))
        shutil.rmtree(folder / "image_encoder")
        with pytest.raises(BackboneError, match="lacks image_encoder; fetch or copy the folder again"):
            Backbone(BackboneParams(path=str(folder), max_sequence_length=512))
