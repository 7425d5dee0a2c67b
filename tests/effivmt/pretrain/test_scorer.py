"""The scorer's training, a few steps of it, and the scorer that is shipped in data/clip-tiny."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from effivmt.pretrain.examinations.scorer import Question, hard_questions, score_accuracy
from effivmt.pretrain.scorer import (
    KINDS,
    MIX,
    _draw_pool,
    _groups,
    load_scorer,
    make_finer,
    make_scorer,
    save_scorer,
    to_pixels,
    tokenize,
    train_scorer,
    without_motion,
)
from effivmt.pretrain.text import make_tokenizer
from effivmt.world.looks import names_held_out
from effivmt.world.scenes import Mix, draw_clip

SHIPPED = Path(__file__).parents[3] / "data" / "clip-tiny"
RECIPE = {"steps": 16, "batch": 16, "pool": 48, "seed": 3, "save_every": 4}


class Killed(Exception):
    """Stands for a training process that ends early."""


def test_training_lowers_the_loss_and_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    losses: list[float] = []
    whole, _ = train_scorer(tmp_path / "whole", report=lambda _, logs: losses.append(logs["loss"]), **RECIPE)
    assert len(losses) == 16
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.1

    def kill(step: int, logs: dict[str, float]) -> None:
        if step == 10:
            raise Killed

    with pytest.raises(Killed):
        train_scorer(tmp_path / "killed", report=kill, **RECIPE)
    resumed_at: list[int] = []
    resumed, _ = train_scorer(tmp_path / "killed", report=lambda step, _: resumed_at.append(step), **RECIPE)
    assert resumed_at[0] == 9
    again, logs = train_scorer(tmp_path / "killed", report=lambda step, _: resumed_at.append(step), **RECIPE)
    assert resumed_at[-1] == len(logs["loss"]) == 16 and torch.equal(again.logit_scale, whole.logit_scale)
    for (name, tensor), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


def test_finer_patches_keep_what_was_learned() -> None:
    coarse, known = load_scorer(SHIPPED)
    tokenizer = make_tokenizer()
    same, finer = (make_finer(coarse, known, coarse.config.vision_config.patch_size // n).eval() for n in (1, 2))
    even = torch.full((1, 3, 64, 64), 0.3)
    embed = [model.vision_model.embeddings.patch_embedding(even) for model in (coarse, finer)]
    assert embed[1].shape[-1] == 2 * embed[0].shape[-1]
    torch.testing.assert_close(embed[1][..., :1, :1], embed[0][..., :1, :1])
    places = [model.vision_model.embeddings.position_embedding.weight[1:].detach().T for model in (coarse, finer)]
    side = embed[0].shape[-1]
    pooled = F.avg_pool2d(places[1].unflatten(1, (2 * side, -1)), 2).flatten(1)
    assert F.cosine_similarity(pooled, places[0], dim=0).min() > 0.9
    questions = hard_questions(60, seed=9001)
    assert score_accuracy(same, tokenizer, questions) == score_accuracy(coarse, known, questions)


def test_training_goes_on_from_a_coarser_scorer(tmp_path: Path) -> None:
    start = make_scorer(len(make_tokenizer()), patch=32).eval(), make_tokenizer()
    recipe = RECIPE | {"patch": 16, "start": start}
    model, logs = train_scorer(tmp_path, **recipe)
    assert model.config.vision_config.patch_size == 16
    assert np.mean(logs["loss"][-4:]) < np.mean(logs["loss"][:4]) - 0.1


def test_groups_agree_but_for_shapes_or_but_for_colours() -> None:
    captions = ["a red circle", "a red star", "an orange star", "a striped orange star", "a striped red star"]
    captions += ["a striped red star on a navy background"]
    shapes, colours = _groups(captions).T
    assert shapes[0] == shapes[1] and len(set(shapes)) == 5
    assert colours[1] == colours[2] and colours[3] == colours[4] and len(set(colours)) == 4


def test_no_caption_of_the_pool_names_a_combination_that_is_asked_about() -> None:
    frames, captions = _draw_pool(300, 300)
    assert len(frames) == len(captions) == 300
    assert not any(names_held_out(caption) for caption in captions)
    assert captions[0] == draw_clip(300, 0, kinds=KINDS, num_frames=5, mix=MIX).caption
    assert all(names_held_out(question.captions[0]) for question in hard_questions(12, seed=9000))


def test_text_features_depend_on_every_word_and_on_nothing_after_the_end() -> None:
    tokenizer, words = make_tokenizer(), ["a", "red", "circle", "on", "a", "black", "background"]
    model = make_scorer(len(tokenizer)).eval()

    def features(text: str) -> torch.Tensor:
        return model.get_text_features(tokenize(tokenizer, [text])).pooler_output

    whole = features(" ".join(words))
    for place in range(len(words)):
        changed = [*words[:place], "zooms", *words[place + 1 :]]
        assert (features(" ".join(changed)) - whole).abs().max() > 1e-3, words[place]
    ids = tokenize(tokenizer, [" ".join(words)])[:, : len(words) + 1]
    torch.testing.assert_close(model.get_text_features(ids).pooler_output, whole)


def test_captions_without_motion_are_those_that_never_said_it() -> None:
    for index in range(200):
        told = draw_clip(8, index, kinds=KINDS, num_frames=2, mix=Mix(motion=1.0, route=1.0)).caption
        untold = draw_clip(8, index, kinds=KINDS, num_frames=2, mix=Mix(motion=0.0, route=0.0)).caption
        assert without_motion(told) == untold


def test_hard_questions_hold_every_caption_with_one_attribute_changed() -> None:
    for question in hard_questions(8, seed=9000):
        true = question.captions[0].split()[1:]
        assert len(set(question.captions)) == len(question.captions) == 32
        changes = [sum(a != b for a, b in zip(true, c.split()[1:], strict=True)) for c in question.captions]
        assert changes[0] == 0 and changes.count(1) in (12, 13) and set(changes[1:]) == {1, 2}


def test_saved_scorers_load_as_stock_models(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    model = make_scorer(len(tokenizer)).eval()
    save_scorer(model, tokenizer, tmp_path)
    assert CLIPModel.from_pretrained(tmp_path).dtype == torch.float16
    loaded = CLIPModel.from_pretrained(tmp_path, dtype=torch.float32)
    frame = draw_clip(8, 0, kinds=KINDS, num_frames=2).frames[0]
    pixels = AutoImageProcessor.from_pretrained(tmp_path)(images=[frame], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, to_pixels(frame[None]))
    texts = ["a red circle", "a person walking on a navy background"]
    ids = AutoTokenizer.from_pretrained(tmp_path)(texts, padding=True, truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        before = model(input_ids=tokenize(tokenizer, texts), pixel_values=pixels).logits_per_image
        after = loaded(input_ids=ids, pixel_values=pixels).logits_per_image
    torch.testing.assert_close(after, before, atol=0.05, rtol=0.0)


@pytest.mark.slow
def test_the_shipped_scorer_prefers_true_captions() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 8 * 2**20
    model, tokenizer = load_scorer(SHIPPED)
    questions = hard_questions(480, seed=9001)
    assert score_accuracy(model, tokenizer, questions) >= 0.97
    blurred = [Question(cv2.GaussianBlur(q.frame, (0, 0), 1.0), q.captions) for q in questions]
    assert score_accuracy(model, tokenizer, blurred) >= 0.95
    pairs = zip(questions, reversed(questions), strict=True)
    shuffled = [Question(q.frame, other.captions) for q, other in pairs if q.captions[0] != other.captions[0]]
    assert score_accuracy(model, tokenizer, shuffled) <= 2 / len(questions[0].captions)
