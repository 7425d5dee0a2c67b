"""The recipe makes folders that load; training can go on from a backbone folder, whose words keep their embeddings."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline
from transformers import T5TokenizerFast, UMT5EncoderModel

from effivmt.config import BackboneParams
from effivmt.errors import BackboneError
from effivmt.method.backbone import Backbone
from effivmt.pretrain import recipe, text
from effivmt.pretrain.drawing import drawing
from effivmt.pretrain.latents import encode_clips
from effivmt.pretrain.plans import PLANS, Phase, Plan
from effivmt.pretrain.pool import Supply
from effivmt.pretrain.scorer import load_scorer
from effivmt.world.looks import names_held_out

SHIPPED = Path("data/wan-tiny")


def without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    train = recipe.transformer.train_transformer
    monkeypatch.setattr(
        recipe.transformer, "train_transformer", lambda *given, **more: train(*given, **more | {"fast": False})
    )


def test_a_start_from_a_folder_computes_what_the_folder_does() -> None:
    models, backbone = recipe.initial_models(SHIPPED), Backbone(BackboneParams(path=str(SHIPPED)))
    prompt = "a red circle moving left on a navy background"
    tokens = text.make_tokenizer()(prompt, return_tensors="pt")
    with torch.no_grad():
        embedded = models["text_encoder"](**tokens).last_hidden_state[0]
    assert torch.allclose(embedded, backbone.encode_texts([prompt])[0][: len(embedded)], atol=1e-4)
    own, stock = models["transformer"].state_dict(), backbone.transformer.state_dict()
    assert own.keys() == stock.keys() and all(torch.equal(own[name], stock[name].float()) for name in own)


def test_words_keep_their_embeddings_and_new_ones_start_at_random(tmp_path: Path) -> None:
    for part in ("transformer", "text_encoder"):
        (tmp_path / part).symlink_to((SHIPPED / part).resolve())
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁red", -2.0), ("▁a", -2.0)]
    T5TokenizerFast(vocab=pieces, extra_ids=0).save_pretrained(tmp_path / "tokenizer")
    random, started = (recipe.initial_models(start)["text_encoder"].shared.weight for start in (None, tmp_path))
    trained = UMT5EncoderModel.from_pretrained(SHIPPED / "text_encoder", dtype=torch.float32).shared.weight
    known = {piece: number for number, (piece, _) in enumerate(pieces)}
    for word, number in text.make_tokenizer().get_vocab().items():
        assert torch.equal(started[number], trained[known[word]] if word in known else random[number]), word


def test_a_start_from_something_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no WanPipeline folder"):
        recipe.initial_models(tmp_path)


def test_all_phases_but_the_first_go_on_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SHIPPED / "vae", tmp_path / "vae")
    stills, sparse, whole = (replace(phase, steps=2) for phase in PLANS["processor"].transformer)
    sparse, whole = replace(sparse, frames=(3,), sparse_of=4), replace(whole, frames=(2,))
    short = replace(
        PLANS["processor"],
        transformer=(stills, sparse, whole),
        batch_frames=4,
        supply=Supply(frames=16, shards=1, uses=1.0),
    )
    without_a_compiler(monkeypatch)
    recipe.measure_latents(tmp_path, lambda *_: None, short, torch.device("cpu"))
    known = json.loads((SHIPPED / "vae" / "config.json").read_text(encoding="utf-8"))
    measured = json.loads((tmp_path / "statistics.json").read_text(encoding="utf-8"))
    assert measured == {"mean": known["latents_mean"], "std": known["latents_std"]}
    seen = []
    for start, phases in ((SHIPPED, ["sparse", "whole"]), (None, ["stills", "sparse", "whole"])):
        report = lambda name, step, *_: seen.append((name, step))  # noqa: E731
        recipe.train_transformer(tmp_path, report, short, torch.device("cpu"), start=start)
        assert seen == [(f"transformer, {phase}", step) for phase in phases for step in (1, 2)]
        assert (tmp_path / "transformer" / "curve.png").is_file()
        seen.clear()
        shutil.rmtree(tmp_path / "transformer")


def test_training_clips_name_no_held_out_look_and_lie_normalised(tmp_path: Path) -> None:
    vae = AutoencoderKLWan(**recipe.autoencoder.CONFIG | {"base_dim": 4}).eval()
    statistics, draw = {"mean": [0.5] * 32, "std": [2.0] * 32}, recipe._drawn(2, 2)
    with drawing() as draw_all:
        some = recipe._captioned(vae, statistics, range(40), draw_all=draw_all, draw=draw)
    clips = [clip for clip in map(draw, range(40)) if not names_held_out(clip.caption)]
    assert len(clips) < 40 and some.captions == [clip.caption for clip in clips]
    wanted = (encode_clips(vae, clips).float() - 0.5) / 2.0
    assert some.latents.shape == (len(clips), 32, 2, 8, 8) and torch.allclose(some.latents.float(), wanted, atol=1e-2)
    assert recipe._drawn(2, 1)(0).frames.shape == (1, 64, 64, 3)
    assert recipe._drawn(2, 21)(0).frames.shape == (81, 64, 64, 3)


def test_the_whole_recipe_makes_folders_that_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_a_compiler(monkeypatch)
    monkeypatch.setattr(recipe.autoencoder, "CONFIG", recipe.autoencoder.CONFIG | {"base_dim": 4})
    plan = Plan(
        autoencoder=(Phase("short", 2, (5,), 1e-3),),
        transformer=(Phase("stills", 1, (1,), 1e-3), Phase("whole", 1, (3,), 1e-3)),
        crop_frames=10,
        crop_clips=4,
        batch_frames=6,
        measured_clips=2,
        supply=Supply(frames=16, shards=1, uses=1.0),
        scorer_steps={32: 1, 16: 1},
        scorer_batch=8,
        scorer_clips=12,
    )
    work, device = tmp_path / "work", torch.device("cpu")
    with pytest.raises(BackboneError, match="run the recipe's step `autoencoder` first"):
        recipe.measure_latents(work, lambda *_: None, plan, device)
    for step in (recipe.train_autoencoder, recipe.measure_latents, recipe.train_transformer, recipe.train_scorer):
        step(work, lambda *_: None, plan, device)
    recipe.assemble(work, tmp_path / "made", plan)
    assert {path.parent.name for path in work.rglob("curve.png")} == {"autoencoder", "transformer", "scorer"}
    video = WanPipeline.from_pretrained(tmp_path / "made", torch_dtype=torch.float32)(
        "a red circle", height=64, width=64, num_frames=33, num_inference_steps=1, guidance_scale=1.0
    ).frames[0]
    assert video.shape == (33, 64, 64, 3) and np.isfinite(video).all()
    assert load_scorer(work / "clip-tiny")[0].config.vision_config.patch_size == 16
    recipe.train_scorer(tmp_path / "more", lambda *_: None, plan, device, start=work / "clip-tiny")
    assert [path.name for path in (tmp_path / "more" / "scorer").iterdir() if path.is_dir()] == ["patches-of-16"]
