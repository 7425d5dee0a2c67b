"""The examination asks what training never named, and counts what the pixels show."""

from pathlib import Path

import numpy as np

from effivmt.config import RenderParams
from effivmt.params_file import load_params
from effivmt.pretrain.examinations.captions import (
    Answer,
    caption_of,
    examine,
    questions,
    reconstruct,
    shares,
    spread,
    true_paths,
)
from effivmt.pretrain.examinations.judge import judge
from effivmt.world.looks import HELD_OUT_LOOKS, Ground, Look, names_held_out
from effivmt.world.motions import NAMED, SIZE, named
from effivmt.world.scenes import object_clip


def true_answer(asked: dict[str, str | None], seed: int) -> Answer:
    look = Look(asked["shape"], asked["colour"], 10.0)
    motion = named(asked["motion"], np.random.default_rng(seed), 33, look.radius)
    frames = object_clip(look, Ground(asked["background"]), motion, "").frames
    return Answer(asked, caption_of(asked), seed, frames, judge(frames))


def test_questions_are_held_out_and_spread_over_everything():
    asked = questions(128, motion=True)
    assert len({caption_of(question) for question in asked}) == 128
    assert all(names_held_out(caption_of(question)) for question in asked)
    assert {question["motion"] for question in asked} == set(NAMED) and len(HELD_OUT_LOOKS) == 16
    assert {question["motion"] for question in questions(8, motion=False)} == {None}
    assert not names_held_out("a red star") and caption_of(questions(1, motion=False)[0]).count("moving") == 0


def test_true_clips_pass():
    answers = [true_answer(asked, seed) for seed, asked in enumerate(questions(64, motion=True))]
    assert min(shares(answers).values()) >= 0.98, shares(answers)


def test_shares_count_what_is_right():
    asked = questions(2, motion=True)
    good, other = (true_answer(question, 0) for question in asked)
    swapped = Answer(good.asked, good.caption, 0, other.frames, other.verdict)
    assert shares([good, swapped])["colour"] == (1 + (asked[0]["colour"] == asked[1]["colour"])) / 2


def test_spread_of_paths():
    still = np.full((9, 2), 32.0)
    assert spread([still, still]) == 0
    assert np.isclose(spread([still, still + np.array([SIZE / 2, 0])]), 0.25)
    broken = still.copy()
    broken[0] = np.nan
    assert spread([broken, still]) == 0
    assert 0.15 < spread(true_paths(40, num_frames=33)) < 0.5


def test_a_random_backbone_is_examined(backbone_folder):
    seen = []
    answers = examine(
        backbone_folder,
        questions(2, motion=True),
        params=RenderParams(steps=1),
        num_frames=9,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [answer.seed for answer in answers] == [0, 1] and seen == [(1, 2), (2, 2)]
    assert answers[0].frames.shape == (9, 64, 64, 3) and set(shares(answers)) >= {"colour", "motion"}


def test_the_shipped_autoencoder_gives_back_what_the_judge_can_read():
    psnr, answers = reconstruct(Path("data/wan-tiny"), "object", 6, num_frames=33)
    assert psnr > 29 and len(answers) >= 3 and set(shares(answers).values()) == {1.0}


def test_the_shipped_backbone_draws_what_captions_say_that_training_never_named():
    params = load_params(Path("params.yaml")).render
    right = shares(examine(Path("data/wan-tiny"), questions(6, motion=True), params=params, num_frames=33))
    assert right["colour"] == right["background"] == 1.0 and min(right["shape"], right["motion"]) >= 0.8, right


def test_a_random_autoencoder_gives_back_nothing(backbone_folder):
    psnr, _ = reconstruct(backbone_folder, "camera", 2, num_frames=9)
    assert psnr < 15
