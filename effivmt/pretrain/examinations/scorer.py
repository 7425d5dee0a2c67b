"""Examines a scorer: whether it finds the true caption of a frame among 32 that differ in one attribute or two."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count as numbers
from itertools import islice, product

import numpy as np
import torch
from torch.nn import functional as F
from transformers import CLIPModel, PreTrainedTokenizerBase

from effivmt.pretrain.scorer import to_pixels, tokenize
from effivmt.world.looks import COLOURS, GROUNDS, HELD_OUT_LOOKS, SHAPES, Ground, Look
from effivmt.world.scenes import WorldClip, describe, describe_ground, draw_clip


@dataclass(frozen=True)
class Question:
    """A frame uint8 (64, 64, 3) and captions of which only the first is true."""

    frame: np.ndarray
    captions: list[str]


def hard_questions(count: int, *, seed: int) -> list[Question]:
    """Questions of 32 captions that name colour, shape and ground, about one-object clips of world `seed` whose true
    combination of these is in `HELD_OUT_LOOKS`, so that no caption in training named it.

    The distractors are every caption with one attribute changed (13) and random ones with two changed. The second
    colour of a patterned object, which is to be seen as well, is in none. `seed` should differ from the training's
    world, `WORLD` + its seed.
    """
    questions = []
    for index, clip in islice(_held_out_clips(seed), count):
        look, true = clip.facts["look"], _combination(clip)
        by_changes: dict[int, list[str]] = {0: [], 1: [], 2: [], 3: []}
        for other in product(COLOURS, SHAPES, GROUNDS):
            if other[0] != look.second or look.pattern == "plain":
                changes = sum(a != b for a, b in zip(true, other, strict=True))
                by_changes[changes].append(_caption(*other))
        rng = np.random.default_rng([seed, index, 13])
        double = [str(caption) for caption in rng.permutation(by_changes[2])]
        frame = clip.frames[int(rng.integers(len(clip.frames)))]
        questions.append(Question(frame, [*by_changes[0], *by_changes[1], *double][:32]))
    return questions


@torch.no_grad()
def score_accuracy(model: CLIPModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]) -> float:
    """The share of `questions` whose first caption scores highest, in [0, 1]."""
    captions = sorted({caption for question in questions for caption in question.captions})
    place = {caption: i for i, caption in enumerate(captions)}
    text = F.normalize(model.get_text_features(tokenize(tokenizer, captions)).pooler_output, dim=-1)
    images = model.get_image_features(to_pixels(np.stack([question.frame for question in questions]))).pooler_output
    right = 0
    for image, question in zip(images, questions, strict=True):
        scores = text[[place[caption] for caption in question.captions]] @ image
        right += int(scores.argmax() == 0)
    return right / len(questions)


def _held_out_clips(seed: int) -> Iterator[tuple[int, WorldClip]]:
    for index in numbers():
        clip = draw_clip(seed, index, kinds={"object": 1.0}, num_frames=5)
        if _combination(clip) in HELD_OUT_LOOKS:
            yield index, clip


def _combination(clip: WorldClip) -> tuple[str, str, str]:
    return clip.facts["look"].colour, clip.facts["look"].shape, clip.facts["ground"].colour


def _caption(colour: str, shape: str, ground: str) -> str:
    return f"{describe(Look(shape, colour, 10.0))} on {describe_ground(Ground(ground))}"
