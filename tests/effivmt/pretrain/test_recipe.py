"""Training can start from a backbone folder, whose words keep their embeddings."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

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


def test_words_that_the_folder_does_not_know_start_at_random() -> None:
    random, started = recipe.initial_models(), recipe.initial_models(SHIPPED)
    known = AutoTokenizer.from_pretrained(SHIPPED / "tokenizer").get_vocab()
    tables = [models["text_encoder"].shared.weight for models in (random, started)]
    for word, number in text.make_tokenizer().get_vocab().items():
        assert torch.equal(tables[0][number], tables[1][number]) == (word not in known)


def test_a_start_from_something_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no WanPipeline folder"):
        recipe.initial_models(tmp_path)
