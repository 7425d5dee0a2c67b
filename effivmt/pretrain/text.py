"""The embedded backbone's tokenizer and text encoder: a word-level T5 vocabulary and a two-layer UMT5 encoder."""

import string
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, T5Tokenizer, UMT5Config, UMT5EncoderModel

from effivmt.world import figure, looks, motions

MAX_TOKENS = 31
CONFIG: dict[str, Any] = {  # arguments of UMT5Config, each of its own type
    "d_model": 128,
    "d_kv": 32,
    "d_ff": 256,
    "num_layers": 2,
    "num_heads": 4,
    "dropout_rate": 0.0,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 32,
    "tie_word_embeddings": True,
}


def make_tokenizer() -> T5Tokenizer:
    """A unigram tokenizer that knows every word of the world's captions and spells all others in letters."""
    phrases = [*looks.COLOURS, *looks.GROUNDS, *looks.SHAPES, *looks.OBJECT_PATTERNS, *looks.GROUND_PATTERNS]
    phrases += [*motions.NAMED, *motions.CAMERA, *figure.ACTIONS]
    phrases += ["a an on in and with over the of", "background ground shape person shirt camera view"]
    words = sorted({word for phrase in phrases for word in phrase.split()})
    # after the others, so that the others keep the numbers that a trained encoder knows
    words += ["at", "bottom", "from", "going", "middle", "to", "top"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    pieces += [("▁" + word, -2.0) for word in words]
    letters = string.ascii_lowercase + string.digits + string.punctuation
    pieces += [("▁", -6.0), *((letter, -10.0) for letter in letters)]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def make_text_encoder(vocabulary: int) -> UMT5EncoderModel:
    """An untrained text encoder for a vocabulary of that size."""
    return UMT5EncoderModel(UMT5Config(vocab_size=vocabulary, **CONFIG))


def carry_words(
    trained: torch.Tensor, known: PreTrainedTokenizerBase, fresh: torch.Tensor, tokenizer: PreTrainedTokenizerBase
) -> torch.Tensor:
    """Embeddings (words of `tokenizer`, D): those of `trained` (words of `known`, D), or of `fresh` for a new word."""
    embeddings, numbers = fresh.clone(), known.get_vocab()
    for word, number in tokenizer.get_vocab().items():
        if word in numbers:
            embeddings[number] = trained[numbers[word]]
    return embeddings
