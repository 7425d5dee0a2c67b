"""A backbone folder is checked, digested by its weights, loaded part by part, and encodes as the pipeline does."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline
from safetensors.torch import load_file, save_file

from effivmt.config import BackboneParams
from effivmt.errors import BackboneError, DamageError, ParamsError
from effivmt.method.backbone import Backbone
from effivmt.method.backbone_checks import COMPONENTS
from effivmt.method.backbone_folder import find_backbone
from effivmt.store.digests import sha256_file
from effivmt.store.memo import read_memo, write_memo


def load(folder: Path, memo: Path | None = None, **changes) -> Backbone:
    params = BackboneParams(path=str(folder), max_sequence_length=16, device="cpu", **changes)
    return Backbone(params, find_backbone(params, memo))


@pytest.fixture
def folder(backbone_folder, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(backbone_folder, tmp_path / "copy"))


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestDigest:
    def test_is_of_the_weights_and_configs_alone(self, backbone, folder):
        (folder / "README.md").write_text("a model card")
        (folder / "examples").mkdir()
        (folder / "examples" / "video.mp4").write_bytes(b"video")
        assert load(folder).digest == backbone.digest and len(backbone.digest) == 64

    @pytest.mark.parametrize("component", COMPONENTS)
    def test_follows_every_byte_of_every_part(self, backbone, folder, component):
        path = max((folder / component).iterdir(), key=lambda p: p.stat().st_size)
        content = bytearray(path.read_bytes())
        content[-1] = ord(" ") if path.name == "scheduler_config.json" else content[-1] ^ 1  # it stays JSON
        path.write_bytes(content)
        assert load(folder).digest != backbone.digest

    def test_is_remembered_until_a_file_changes(self, backbone, folder, tmp_path):
        memo = tmp_path / "new" / "memo.json"
        assert load(folder, memo).digest == backbone.digest
        known = read_memo(memo)
        config = sha256_file(folder / "vae" / "config.json")
        write_memo(memo, {sign: "0" * 64 if digest == config else digest for sign, digest in known.items()})
        assert load(folder, memo).digest != backbone.digest
        os.utime(folder / "vae" / "config.json", ns=(1, 1))
        assert load(folder, memo).digest == backbone.digest
        assert len(read_memo(memo)) == len(known) + 1

    @pytest.mark.parametrize("damage", ["flip", "cut", "folder", "link", "pipe", "deep", "list"])
    def test_is_computed_again_where_the_memory_is_damaged(self, backbone, folder, tmp_path, damage):
        memo = tmp_path / "memo.json"
        load(folder, memo)
        content = memo.read_bytes()
        for position in range(0, len(content), 5) if damage == "flip" else [0]:
            memo.unlink(missing_ok=True)
            if damage == "flip":
                memo.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            elif damage == "cut":
                memo.write_bytes(content[:-2])
            elif damage == "folder":
                (memo / "more").mkdir(parents=True)
            elif damage == "link":
                memo.symlink_to(tmp_path / "nowhere")
            elif damage == "pipe":
                os.mkfifo(memo)
            else:
                memo.write_text("[" * 100_000 if damage == "deep" else "[]")
            with pytest.raises(DamageError, match=r"memo\.json is damaged: it is dropped, and made again"):
                load(folder, memo)
            assert load(folder, memo).digest == backbone.digest
            assert memo.read_bytes() == content

    def test_is_computed_again_where_an_earlier_version_remembered_it(self, backbone, folder, tmp_path):
        """Without a checksum it cannot be told from a damaged one."""
        memo = tmp_path / "memo.json"
        load(folder, memo)
        known = read_memo(memo)
        memo.write_text(json.dumps(dict.fromkeys(known, "0" * 64)))
        assert load(folder, memo).digest == backbone.digest and read_memo(memo) == known


class TestFolder:
    def test_must_be_a_pipeline(self, tmp_path, folder):
        with pytest.raises(BackboneError, match=r"has no readable model_index\.json"):
            load(tmp_path)
        (folder / "model_index.json").write_text("{")
        with pytest.raises(BackboneError, match=r"has no readable model_index\.json"):
            load(folder)

    @pytest.mark.parametrize(
        "change",
        [{"_class_name": "FluxPipeline"}, {"transformer_2": ["diffusers", "WanTransformer3DModel"]}],
    )
    def test_must_be_of_a_kind_that_is_taken(self, folder, change):
        edit_json(folder / "model_index.json", **change)
        with pytest.raises(BackboneError, match=r"expected a WanPipeline of Wan 2\.1, Wan 2\.2 A14B or"):
            load(folder)

    @pytest.mark.parametrize("component", COMPONENTS)
    def test_must_have_every_part(self, folder, component):
        shutil.rmtree(folder / component)
        with pytest.raises(BackboneError, match=rf"lacks {component};"):
            load(folder)

    def test_a_name_that_is_neither_folder_nor_hub_id(self, tmp_path):
        with pytest.raises(BackboneError, match=r"is no folder here and cannot be fetched as a hub id"):
            load(tmp_path / "no such folder")

    @pytest.mark.parametrize("damage", ["truncated", "pickled", "config", "missing"])
    def test_damaged_weights_are_an_error(self, folder, damage):
        (path,) = (folder / "transformer").glob("*.safetensors")
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:1000])
        elif damage == "config":
            edit_json(folder / "transformer" / "config.json", num_attention_heads=3)
        else:
            path.unlink()
        if damage == "pickled":
            torch.save({}, folder / "transformer" / "diffusion_pytorch_model.bin")
        with pytest.raises(BackboneError, match=r"its transformer cannot be loaded \(.+\); expected a Wan") as error:
            load(folder).transformer  # noqa: B018
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("component", "weight"),
        [
            ("transformer", "blocks.1.attn1.to_q.weight"),
            ("vae", "decoder.conv_in.bias"),
            ("text_encoder", "encoder.block.0.layer.0.SelfAttention.q.weight"),
            ("text_encoder", "shared.weight"),
        ],
    )
    @pytest.mark.parametrize("damage", ["missing", "unknown"])
    def test_a_weight_that_is_missing_or_unknown_is_an_error(self, folder, component, weight, damage):
        """The libraries give a missing weight random values, and only log it."""
        (path,) = (folder / component).glob("*.safetensors")
        weights = load_file(path)
        removed = weights.pop(weight)
        if damage == "unknown":
            weights |= {weight: removed, f"other.{weight}": removed.clone()}
        save_file(weights, path, metadata={"format": "pt"})
        backbone = load(folder)
        fault = f"lacks weights .*{weight}" if damage == "missing" else f"has unknown weights other.{weight}"
        message = rf"its {component} cannot be loaded \(its file {fault}.*\); expected a Wan"
        with pytest.raises(BackboneError, match=message) as error:
            backbone.encode_texts(["a"]) if component == "text_encoder" else getattr(backbone, component)
        assert "\n" not in str(error.value)

    def test_the_id_is_the_folders_name(self, backbone):
        assert backbone.id == "wan-random"

    @pytest.mark.parametrize("device", ["gpu", "cuda"])
    def test_a_device_that_is_not_there(self, backbone_folder, device):
        if device == "cuda" and torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        with pytest.raises(ParamsError, match=rf"backbone\.device is '{device}'"):
            Backbone(BackboneParams(path=str(backbone_folder), device=device))


class TestParts:
    def test_load_once_and_are_released(self, backbone_folder):
        backbone = load(backbone_folder)
        assert backbone._parts == {}
        transformer = backbone.transformer
        assert backbone.transformer is transformer and not transformer.training
        assert not any(parameter.requires_grad for parameter in transformer.parameters())
        backbone.encode_texts(["a"])
        assert backbone.vae is backbone.vae
        assert set(backbone._parts) == {"transformer", "vae", "text_encoder", "tokenizer"}
        backbone.keep("transformer")
        assert backbone._parts == {"transformer": transformer}
        backbone.keep()
        assert backbone._parts == {} and backbone.transformer is not transformer

    def test_precision_is_the_transformers_and_never_the_vaes(self, backbone_folder):
        backbone = load(backbone_folder, dtype="bfloat16")
        assert backbone.transformer.dtype == torch.bfloat16
        assert backbone.transformer.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
        assert backbone.transformer.rope.freqs_cos.dtype == torch.float32
        assert {parameter.dtype for parameter in backbone.vae.parameters()} == {torch.float32}
        (embedding,) = backbone.encode_texts(["a red square"])
        assert embedding.dtype == torch.float32

    def test_the_pipeline_takes_the_flow_shift(self, backbone):
        pipeline = backbone.pipeline(7.0)
        assert pipeline.scheduler.config.flow_shift == 7.0 and pipeline.text_encoder is None
        assert pipeline.transformer is backbone.transformer and pipeline.vae is backbone.vae


class TestEncoding:
    def test_texts_equal_the_stock_pipelines(self, backbone):
        pipeline = WanPipeline.from_pretrained(backbone.folder)
        texts = ["a red square on a navy background", "", "a green  circle &amp; a star " * 9]
        found = backbone.encode_texts(texts)
        expected, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False, max_sequence_length=16)
        assert len(found) == 3 and torch.allclose(torch.stack(found), expected, atol=1e-6)
        assert found[0].shape == (16, 16) and found[1].any() and not found[1][1:].any()

    def test_videos_are_normalised_as_the_pipeline_expects(self, folder):
        """Latents times std plus mean are the VAE's own, and the pipeline decodes them to what the VAE gives."""
        mean, std = [0.1, -0.2, 0.3, 0.4], [0.5, 2.0, 1.5, 0.8]
        edit_json(folder / "vae" / "config.json", latents_mean=mean, latents_std=std)
        backbone, vae = load(folder), AutoencoderKLWan.from_pretrained(folder, subfolder="vae")
        frames = np.random.default_rng(0).integers(0, 256, (9, 32, 48, 3), dtype=np.uint8)
        latents = backbone.encode_video(frames)
        assert latents.shape == (4, 3, 4, 6) and latents.dtype == torch.float32
        pixels = torch.tensor(frames / 127.5 - 1, dtype=torch.float32).permute(3, 0, 1, 2)[None]
        with torch.no_grad():
            raw = vae.encode(pixels).latent_dist.mode()
        shape = (1, 4, 1, 1, 1)
        denormalised = latents[None] * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
        assert torch.allclose(denormalised, raw, atol=1e-5)
        with torch.no_grad():
            decoded = backbone.pipeline(5.0).video_processor.postprocess_video(vae.decode(raw).sample, output_type="np")
        shown = backbone.decode_video(latents)
        assert shown.shape == frames.shape and np.abs(shown - 255 * decoded[0]).max() <= 0.51

    def test_single_frames_and_bytes_of_all_values(self, backbone):
        frame = np.arange(256, dtype=np.uint8).repeat(12).reshape(1, 32, 32, 3)
        assert backbone.encode_video(frame).shape == (4, 1, 4, 4)
        video = np.concatenate([frame] * 5)
        first = backbone.encode_video(video)[:, :1]
        assert torch.allclose(first, backbone.encode_video(frame), atol=1e-5)  # the first frame stands alone
