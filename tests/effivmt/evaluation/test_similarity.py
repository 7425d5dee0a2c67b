"""CLIP metrics with a small random CLIPModel and a word tokenizer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
)

from effivmt.errors import BackboneError, VideoError
from effivmt.evaluation.similarity import (
    BATCH,
    ClipScorer,
    appearance_leakage,
    reference_resemblance,
    temporal_consistency,
    text_similarity,
)

WORDS = ["<pad>", "<end>", "<unk>", "a", "red", "blue", "circle", "square", "moving", "left"]
LENGTH = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextConfig(
        vocab_size=len(WORDS), max_position_embeddings=LENGTH, bos_token_id=None, eos_token_id=1, pad_token_id=0, **size
    )
    vision = CLIPVisionConfig(image_size=64, patch_size=16, **size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16))
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    ).save_pretrained(folder)
    square = {"height": 64, "width": 64}
    CLIPImageProcessorPil(size=square, crop_size=square).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def scorer(folder: Path) -> ClipScorer:
    return ClipScorer(folder)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (BATCH + 5, 48, 80, 3)).astype(np.uint8)


def test_frame_features_are_the_models_own_in_unit_rows(folder, scorer, frames):
    features = scorer.frame_features(frames)
    assert features.shape == (len(frames), 16) and features.dtype == np.float32
    assert np.linalg.norm(features, axis=1) == pytest.approx(1.0, abs=1e-5)
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(list(frames), return_tensors="pt").pixel_values
    assert pixels.shape == (len(frames), 3, 64, 64)
    with torch.no_grad():
        own = CLIPModel.from_pretrained(folder).eval().get_image_features(pixels).pooler_output.numpy()
    assert features == pytest.approx(own / np.linalg.norm(own, axis=1, keepdims=True), abs=1e-5)


def test_features_neither_depend_on_batches_nor_change(scorer, frames):
    whole = scorer.frame_features(frames)
    assert (whole == scorer.frame_features(frames)).all()
    alone = np.concatenate([scorer.frame_features(frames[i : i + 1]) for i in range(len(frames))])
    assert whole == pytest.approx(alone, abs=1e-5)
    texts = ["a red circle", "a blue square moving left"] * BATCH
    both = scorer.text_features(texts)
    assert both[:2] == pytest.approx(np.concatenate([scorer.text_features([text]) for text in texts[:2]]), abs=1e-5)
    assert both[-2:] == pytest.approx(both[:2], abs=1e-5)


def test_text_features_are_the_models_own_and_long_texts_are_cut(folder, scorer):
    features = scorer.text_features(["a red circle", "blue " * 50])
    assert features.shape == (2, 16)
    assert np.linalg.norm(features, axis=1) == pytest.approx(1.0, abs=1e-5)
    with torch.no_grad():
        model = CLIPModel.from_pretrained(folder).eval()
        own = model.get_text_features(torch.tensor([[3, 4, 6, 1]])).pooler_output[0].numpy()
        cut = model.get_text_features(torch.tensor([[5] * (LENGTH - 1) + [1]])).pooler_output[0].numpy()
    assert features[0] == pytest.approx(own / np.linalg.norm(own), abs=1e-5)
    assert features[1] == pytest.approx(cut / np.linalg.norm(cut), abs=1e-5)
    assert abs(features[0] @ scorer.text_features(["a blue square"])[0]) < 0.999


def test_temporal_consistency_is_the_mean_cosine_of_neighbours(scorer, frames):
    turn = np.radians([0.0, 60.0, 60.0, 150.0])
    features = np.stack([np.cos(turn), np.sin(turn)], 1)
    assert temporal_consistency(features) == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    frozen = scorer.frame_features(np.repeat(frames[:1], 5, 0))
    assert temporal_consistency(frozen) == pytest.approx(1.0, abs=1e-5)
    assert temporal_consistency(scorer.frame_features(frames)) < temporal_consistency(frozen)
    with pytest.raises(VideoError, match="1 frames"):
        temporal_consistency(features[:1])


def test_text_similarity_is_the_mean_cosine_over_frames(scorer, frames):
    rows = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert text_similarity(rows, np.array([[0.6, 0.8]])) == pytest.approx(0.7)
    images, texts = scorer.frame_features(frames), scorer.text_features(["a red circle"])
    assert text_similarity(images, texts) == pytest.approx(np.mean([image @ texts[0] for image in images]), abs=1e-6)


def test_appearance_leakage_is_how_much_nearer_the_caption_is_than_the_prompt(scorer, frames):
    caption, prompt = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]])
    assert appearance_leakage(caption.repeat(3, 0), caption, prompt) == pytest.approx(1 - 0.6)
    assert appearance_leakage(prompt.repeat(3, 0), caption, prompt) == pytest.approx(0.6 - 1)
    assert appearance_leakage(np.array([[1.0, 0.0], [0.6, 0.8]]), caption, prompt) == pytest.approx(0.0)
    images, texts = scorer.frame_features(frames), scorer.text_features(["a red circle", "a blue square"])
    one, other = appearance_leakage(images, texts[:1], texts[1:]), appearance_leakage(images, texts[1:], texts[:1])
    assert one == pytest.approx(-other) and abs(one) > 1e-4
    assert appearance_leakage(images, texts[:1], texts[:1]) == 0.0


def test_reference_resemblance_is_the_mean_cosine_at_the_same_times(scorer, frames):
    turn = np.radians([0.0, 30.0, 60.0, 90.0, 120.0])
    features = np.stack([np.cos(turn), np.sin(turn)], 1)
    assert reference_resemblance(features, features) == pytest.approx(1.0)
    assert reference_resemblance(features, features[::-1]) == pytest.approx((2 * -0.5 + 2 * 0.5 + 1) / 5)
    assert reference_resemblance(features, features[::2]) == pytest.approx(1.0)
    assert reference_resemblance(features[::2], features) == pytest.approx(1.0)
    images = scorer.frame_features(frames)
    assert reference_resemblance(images, images) == pytest.approx(1.0, abs=1e-5)
    assert reference_resemblance(images, images[::-1]) < 1.0


def test_other_frames_are_refused(scorer):
    for wrong in (np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(VideoError, match="uint8 frames"):
            scorer.frame_features(wrong)


def copied(folder: Path, to: Path, without: str = "") -> Path:
    to.mkdir()
    for path in folder.iterdir():
        if path.name != without:
            (to / path.name).write_bytes(path.read_bytes())
    return to


def test_a_folder_that_is_no_scorer_is_refused_in_one_line(folder, tmp_path):
    damaged = copied(folder, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no tensors here")
    other = copied(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    deeper = copied(folder, tmp_path / "deeper")
    config["text_config"]["num_hidden_layers"] = 3
    (deeper / "config.json").write_text(json.dumps(config))
    cases = {
        tmp_path / "missing": "no readable config.json",
        damaged: "cannot be loaded",
        other: "model of type bert",
        deeper: "lacks 16 weights",
        copied(folder, tmp_path / "weightless", "model.safetensors"): "cannot be loaded",
        copied(folder, tmp_path / "wordless", "tokenizer.json"): "cannot be loaded",
        copied(folder, tmp_path / "unprocessed", "preprocessor_config.json"): "cannot be loaded",
    }
    for path, reason in cases.items():
        with pytest.raises(BackboneError, match=reason) as caught:
            ClipScorer(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
