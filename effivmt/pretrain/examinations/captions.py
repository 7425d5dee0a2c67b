"""Examines a trained backbone: clips of captions that training never named, judged from their pixels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from effivmt.config import BackboneParams, IngestParams, RenderParams
from effivmt.method.backbone import Backbone
from effivmt.method.rendering import render
from effivmt.pretrain.autoencoder import decode_whole, encode_whole
from effivmt.pretrain.examinations.judge import Verdict, judge
from effivmt.world.looks import HELD_OUT_LOOKS
from effivmt.world.motions import NAMED, SIZE
from effivmt.world.scenes import draw_clip, with_article

ATTRIBUTES = ("colour", "shape", "background", "motion")
WORLD = 9000
"""The world's data set that the spread of true paths is taken from; training never draws it."""


class Question(TypedDict):
    """What a caption asks for; `motion` None: it says none."""

    colour: str
    shape: str
    background: str
    motion: str | None


@dataclass(frozen=True)
class Answer:
    """What was asked for, the caption, the seed, the clip uint8 (T, H, W, 3), and its verdict."""

    asked: Question
    caption: str
    seed: int
    frames: np.ndarray
    verdict: Verdict

    @property
    def right(self) -> dict[str, bool]:
        """For each attribute that was asked for, whether the clip shows it."""
        return {name: getattr(self.verdict, name) == want for name, want in self.asked.items() if want is not None}


def questions(count: int, *, motion: bool) -> list[Question]:
    """`count` combinations of a held-out look with a named motion, or with none; evenly spread, the same every time."""
    looks, names = sorted(HELD_OUT_LOOKS), list(NAMED)
    rng = np.random.default_rng(0)
    order = [(look, name) for look in looks for name in (names if motion else [None])]
    order = [order[i] for i in rng.permutation(len(order))]
    chosen = [order[i % len(order)] for i in range(count)]
    return [_question(*look, name) for look, name in chosen]


def caption_of(asked: Question) -> str:
    """The caption that names everything asked for."""
    thing = with_article(f"{asked['colour']} {asked['shape']}")
    moving = f" {asked['motion']}" if asked["motion"] else ""
    return f"{thing}{moving} on {with_article(asked['background'] + ' background')}"


def examine(
    folder: Path,
    asked: list[Question],
    *,
    params: RenderParams,
    num_frames: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """Draws one clip of `num_frames` frames for each question, with seeds 0, 1, 2, …, and judges it."""
    captions = [caption_of(question) for question in asked]
    clips = draw_captions(folder, captions, params=params, num_frames=num_frames, progress=progress)
    return [
        Answer(question, caption, seed, frames, judge(frames))
        for seed, (question, caption, frames) in enumerate(zip(asked, captions, clips, strict=True))
    ]


def draw_captions(
    folder: Path,
    captions: list[str],
    *,
    params: RenderParams,
    num_frames: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[np.ndarray]:
    """One clip uint8 (T, H, W, 3) of the backbone in `folder` for each caption, with seeds 0, 1, 2, …

    T = `num_frames`, of the form 4k+1.
    """
    size = IngestParams(num_frames=num_frames)
    backbone = Backbone(BackboneParams(path=str(folder)))
    negative = backbone.encode_texts([params.negative_prompt])[0]
    for seed, caption in enumerate(captions):
        yield render(
            backbone,
            None,
            backbone.encode_texts([caption])[0],
            negative,
            params=params,
            size=size,
            seed=seed,
        )
        if progress is not None:
            progress(seed + 1, len(captions))


def shares(answers: list[Answer]) -> dict[str, float]:
    """The share of the answers that are right in each attribute asked for, in [0, 1]."""
    return {
        name: float(np.mean([answer.right[name] for answer in answers if name in answer.right]))
        for name in ATTRIBUTES
        if any(name in answer.right for answer in answers)
    }


def reconstruct(folder: Path, kind: str, count: int, *, num_frames: int) -> tuple[float, list[Answer]]:
    """How well the backbone's autoencoder reconstructs `count` world clips of a kind and `num_frames` frames: mean PSNR
    in dB, peak 255, and, of clips of a plain object, what the judge reads in them beside what is truly there.
    """
    vae = Backbone(BackboneParams(path=str(folder))).vae
    errors: list[float] = []
    answers: list[Answer] = []
    for index in range(count):
        clip = draw_clip(WORLD, index, kinds={kind: 1.0}, num_frames=num_frames)
        video = torch.from_numpy(clip.frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        with torch.no_grad():
            restored = decode_whole(vae, encode_whole(vae, video).chunk(2, dim=1)[0]).clamp(-1, 1)
        frames = ((restored[0].permute(1, 2, 3, 0) + 1) * 127.5).round().numpy().astype(np.uint8)
        errors.append(float(np.square(frames.astype(float) - clip.frames).mean()))
        if kind == "object" and clip.facts["look"].pattern == "plain":
            look, ground = clip.facts["look"], clip.facts["ground"]
            true = _question(look.colour, look.shape, ground.colour, clip.facts["phrase"])
            answers.append(Answer(true, clip.caption, index, frames, judge(frames)))
    return float(np.mean(10 * np.log10(255**2 / np.array(errors)))), answers


def spread(paths: list[np.ndarray]) -> float:
    """How far apart paths (T, 2) run: rms distance from their mean path over paths and frames, in frame widths.

    Frames where no object is seen (NaN) do not count.
    """
    stacked = np.stack(paths)
    return float(np.sqrt(np.nanmean(((stacked - np.nanmean(stacked, 0)) ** 2).sum(-1)))) / SIZE


def true_paths(count: int, *, num_frames: int) -> list[np.ndarray]:
    """Paths (T, 2) of world clips of `num_frames` frames whose captions name no motion, as training draws them."""
    paths: list[np.ndarray] = []
    index = 0
    while len(paths) < count:
        clip = draw_clip(WORLD, index, kinds={"object": 1.0}, num_frames=num_frames)
        if not any(name in clip.caption for name in NAMED):
            paths.append(clip.facts["motion"].centre)
        index += 1
    return paths


def _question(colour: str, shape: str, background: str, motion: str | None) -> Question:
    return {"colour": colour, "shape": shape, "background": background, "motion": motion}
