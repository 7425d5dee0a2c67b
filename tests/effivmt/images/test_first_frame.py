"""Videos that begin with an image, on a backbone that takes a clean first latent frame at timestep 0."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from stock_images import CLEAN, stock, video

from effivmt.config import Params
from effivmt.errors import BackboneError, ParamsError, VideoError
from effivmt.method.backbone import Backbone
from effivmt.method.losses import add_noise
from effivmt.method.prediction import FirstFrame, predict_velocity
from effivmt.method.rendering import render
from effivmt.pipeline import stages
from effivmt.pipeline.plan import plan_clip
from effivmt.pipeline.stages.first_frame import fitted
from effivmt.pipeline.transfer import TransferResult, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.pipeline.write_outputs import write_outputs
from effivmt.pretrain.examinations.images import draw_pictures
from effivmt.store.store import Store


@pytest.fixture(scope="module")
def work(tmp_path_factory, image_params) -> Workspace:
    return Workspace(Store(tmp_path_factory.mktemp("first") / "store"), image_params)


@pytest.fixture(scope="module")
def done(work, animated) -> TransferResult:
    return run_clip(work, animated)


def giving(work: Workspace) -> Workspace:
    """The workspace with the clip's own first frame given to the tuning."""
    temporal = work.params.temporal.model_copy(update={"first_frame": True})
    return replace(work, params=work.params.model_copy(update={"temporal": temporal}))


class TestVelocity:
    def test_is_that_of_the_stock_pipeline(self, work):
        """The clean frame has timestep 0 on its tokens, and what the noise was there makes no difference."""
        backbone = work.backbone
        latents = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        noised = add_noise(latents, torch.randn(latents.shape), torch.tensor([0.9, 0.4]))
        text = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(1))
        first = FirstFrame(latents[:, :, :1], clean=True)
        with torch.no_grad():
            found = predict_velocity(backbone.transformer, noised, torch.tensor([900.0, 400.0]), text, first=first)
            tokens = torch.tensor([[900.0], [400.0]]).repeat(1, 12)
            tokens[:, :4] = 0
            whole = torch.cat([latents[:, :, :1], noised[:, :, 1:]], dim=2)
            assert torch.equal(found, backbone.transformer(whole, tokens, text, return_dict=False)[0])
            noised[:, :, 0] += 1
            again = predict_velocity(backbone.transformer, noised, torch.tensor([900.0, 400.0]), text, first=first)
        assert torch.equal(again, found) and first.predicted == slice(1, None)

    def test_the_first_frame_is_the_first_of_the_clip(self, work, done):
        """The autoencoder encodes the first frame alone, so the clip's latents have it."""
        dense = load_file(done.ingested.file("dense.safetensors"))["dense"]
        frames = load_file(done.ingested.file("frames.safetensors"))["frames"].numpy()
        first = work.backbone.first_frame(frames[0], len(frames))
        assert first.clean and first.embedding is None
        torch.testing.assert_close(first.latents, dense[:, :, :1], atol=1e-5, rtol=0)


class TestTransfer:
    def test_tunes_as_for_a_prompt_and_keeps_the_keys_of_that(self, work, done, animated):
        """An image only renders, and without one no key has a word of images."""
        plain = run_clip(work, animated.model_copy(update={"images": (), "prompts": ("a star",)}))
        assert plain.motion.cached and plain.motion.path == done.motion.path
        assert set(plain.motion.inputs) == {"clip", "caption", "heads", "spatial"}
        assert set(plain.classified.inputs) == {"clip", "caption"}
        assert "image" in done.rendered[0].artifact.inputs and "image" not in plain.rendered[0].artifact.inputs
        assert set(plain.rendered[0].artifact.files) == {"video.mp4", "sheet.png"}
        assert "first_frame" not in json.dumps(work.params.model_dump())
        assert "images" not in plain.clip.model_dump(mode="json")
        assert [stage.action for stage in plan_clip(work, animated)] == ["hit"] * len(stages.STAGES)

    def test_sees_the_first_frame_where_it_is_asked_to(self, work, done, animated):
        chosen = giving(work)
        given = run_clip(chosen, animated)
        assert given.losses["spatial"] == {} and len(given.losses["temporal"]["motion"]) == 3
        assert "first_frame" in given.motion.inputs and "first_frame_0" in given.classified.inputs
        assert [stage.action for stage in plan_clip(chosen, animated)] == ["hit"] * len(stages.STAGES)

    def test_takes_no_looks_of_the_reference(self, work, done, animated):
        """The image gives the looks: no appearance strength changes the video."""
        render = work.params.render.model_copy(update={"appearance_strength": 4.0})
        loud = replace(work, params=work.params.model_copy(update={"render": render}))
        (video,) = stages.render(loud, [""], done.motion.path / "adapter", images=animated.images)
        assert video.artifact.cached

    def test_leaves_the_image_in_the_out_folder(self, work, done, tmp_path, image):
        outputs = write_outputs(work, done, tmp_path)
        (row,) = json.loads(outputs.metrics.read_text())["results"]
        assert (row["prompt"], row["image"]) == ("", "image-1.png") and "text_similarity" not in row["adapter"]
        shown = np.asarray(Image.open(outputs.folder / "image-1.png"))
        assert np.array_equal(shown, fitted(work, image)) and shown.shape == (32, 32, 3)
        assert "image-1.png" in json.loads(outputs.record.read_text())["files"]
        page = outputs.report.read_text()
        assert "First frame</figcaption>" in page and "From an image" in page


def test_an_image_of_another_shape_is_cropped_to_its_middle(work, image):
    """As a video is: a picture of 64 x 48 keeps its height and loses its sides."""
    whole = Image.open(image)
    assert whole.size == (64, 48)
    expected = whole.resize((32, 32), Image.Resampling.BICUBIC, box=(8, 0, 56, 48))
    assert np.array_equal(fitted(work, image), np.asarray(expected))


def test_rendering_is_that_of_the_stock_pipeline(work, image):
    backbone, size = work.backbone, work.params.ingest.model_copy(update={"num_frames": 9})
    prompts = backbone.encode_texts(["a red square", "blur"])
    settings = work.params.render.model_copy(update={"steps": 4})
    picture = fitted(work, image)
    found = render(backbone, None, *prompts, params=settings, size=size, seed=5, image=picture)
    pipeline = stock(backbone.folder, **CLEAN)
    expected = video(pipeline, picture, prompts, settings.guidance_scale)
    assert np.abs(found - expected * 255.0).max() <= 0.51
    kept = backbone.decode_video(backbone.encode_video(picture[None]))[0]
    assert np.abs(found[0].astype(int) - kept).max() <= 1


def test_wan_tiny_renders_the_first_frame_as_its_autoencoder_gives_it_back():
    """Before compression, so that what an mp4 has less is the compression's."""
    params = Params()
    backbone, (picture,) = Backbone(params.backbone), draw_pictures(1)
    prompts = backbone.encode_texts([picture.caption, ""])
    settings = params.render.model_copy(update={"steps": 2})
    size = params.ingest.model_copy(update={"num_frames": 5})
    found = render(backbone, None, *prompts, params=settings, size=size, seed=0, image=picture.image)
    kept = backbone.decode_video(backbone.encode_video(picture.image[None]))[0]
    assert np.abs(found[0].astype(int) - kept).max() <= 1


class TestRefusals:
    @pytest.mark.parametrize("mode", ["latent", "pixel"])
    def test_a_sampling_that_loses_the_first_frame(self, work, animated, mode):
        sampling = work.params.sampling.model_copy(update={"mode": mode})
        chosen = giving(replace(work, params=work.params.model_copy(update={"sampling": sampling})))
        with pytest.raises(ParamsError, match=f"sampling.mode is {mode}, which does not always keep the first frame"):
            run_clip(chosen, animated)

    def test_a_backbone_of_texts_alone(self, workspace, animated):
        with pytest.raises(ParamsError, match=r"wan-random takes no image: .* leave the image out"):
            run_clip(workspace, animated)
        assert not list(workspace.store.root.glob("ingest/*"))

    def test_another_number_of_images(self, work, image):
        with pytest.raises(ParamsError, match="there are 2 images for 1 prompt; give one image for each prompt"):
            stages.render(work, ["a star"], None, images=[image, image])

    def test_no_image(self, work, animated, tmp_path):
        (tmp_path / "text.png").write_text("none")
        (tmp_path / "folder").mkdir()
        for name, told in (("gone.png", "does not exist"), ("folder", "is no file"), ("text.png", "cannot be decoded")):
            with pytest.raises(VideoError, match=told):
                run_clip(work, animated.model_copy(update={"images": (tmp_path / name,)}))

    def test_an_image_of_too_many_pixels(self, work, animated, tmp_path):
        Image.new("1", (8192, 4097)).save(tmp_path / "huge.png")
        with pytest.raises(VideoError, match="8192x4097 pixels, expected at most"):
            run_clip(work, animated.model_copy(update={"images": (tmp_path / "huge.png",)}))

    def test_a_marker_that_is_none(self, first_frame_folder, tmp_path):
        (tmp_path / "marked").mkdir()
        for part in first_frame_folder.iterdir():
            if part.is_dir():
                (tmp_path / "marked" / part.name).symlink_to(part)
        index = json.loads((first_frame_folder / "model_index.json").read_text())
        (tmp_path / "marked" / "model_index.json").write_text(json.dumps(index | {"_first_frame": "yes"}))
        with pytest.raises(BackboneError, match="has _first_frame 'yes'; expected true or false"):
            Backbone(Params().backbone.model_copy(update={"path": str(tmp_path / "marked")}))


def test_the_digest_does_not_know_of_it(first_frame_folder, backbone_folder):
    """Results that were made before the marker stay."""
    params = Params().backbone
    marked, plain = (
        Backbone(params.model_copy(update={"path": str(it)})) for it in (first_frame_folder, backbone_folder)
    )
    assert marked.digest == plain.digest and marked.found.shape.first_frame and not plain.found.shape.first_frame
