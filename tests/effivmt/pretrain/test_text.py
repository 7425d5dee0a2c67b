"""Embeddings follow their words from one vocabulary to another."""

import torch
from transformers import T5TokenizerFast

from effivmt.pretrain.text import carry_words, make_tokenizer


def test_known_words_keep_their_embeddings_and_new_ones_stay_fresh() -> None:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁star", -2.0), ("▁red", -2.0), ("▁gone", -2.0)]
    known, tokenizer = T5TokenizerFast(vocab=pieces, extra_ids=0), make_tokenizer()
    trained, fresh = torch.arange(6.0)[:, None], -torch.ones(len(tokenizer), 1)
    carried = carry_words(trained, known, fresh, tokenizer)
    numbers = tokenizer.get_vocab()
    assert carried[numbers["▁star"]] == 3 and carried[numbers["▁red"]] == 4 and carried[numbers["</s>"]] == 1
    assert (carried >= 0).sum() == 5 and carried[numbers["▁square"]] == -1 and (fresh == -1).all()
