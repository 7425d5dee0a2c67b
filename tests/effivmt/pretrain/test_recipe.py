"""Training can go on from a backbone folder, whose words keep their embeddings."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import T5TokenizerFast, UMT5EncoderModel

from effivmt.backbone import Backbone
from effivmt.config import BackboneParams
from effivmt.errors import BackboneError
from effivmt.pretrain import recipe, text

SHIPPED = Path("data/wan-tiny")


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


def test_only_the_last_phase_goes_on_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, frames in (("clips", 9), ("stills", 1)):
        (tmp_path / name).mkdir()
        captions = json.dumps(["a red circle", "a blue square"])
        latents = torch.randn(2, 24, frames, 8, 8, generator=torch.Generator().manual_seed(0)).half()
        save_file({"latents": latents}, tmp_path / name / "00000.safetensors", metadata={"captions": captions})
    (tmp_path / "statistics.json").write_text(json.dumps({"mean": [0.0] * 24, "std": [1.0] * 24}), encoding="utf-8")
    last = replace(recipe.PLAN["transformer"][-1], steps=2, frames=(1,))
    monkeypatch.setattr(recipe, "PLAN", {"transformer": (replace(last, name="stills"), last)})
    monkeypatch.setattr(recipe, "CLIPS", range(1))
    monkeypatch.setattr(recipe, "STILLS", range(1))
    train = recipe.transformer.train_transformer
    monkeypatch.setattr(
        recipe.transformer,
        "train_transformer",
        lambda *given, **more: train(*given, **more | {"compile_blocks": False}),
    )
    seen = []
    for start, phases in ((SHIPPED, ["whole"]), (None, ["stills", "whole"])):
        recipe.train_transformer(tmp_path, lambda name, step, *_: seen.append((name, step)), start=start)
        assert seen == [(f"transformer, {phase}", step) for phase in phases for step in (1, 2)]
        seen.clear()
        shutil.rmtree(tmp_path / "transformer")
