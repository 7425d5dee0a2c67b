"""How many tokens of a text a backbone reads, and which words it would lose; asks for no model."""

import html
from functools import cache
from pathlib import Path

import ftfy
from tokenizers import Tokenizer

from effivmt.errors import BackboneError


def text_fault(folder: Path, text: str, most: int) -> str:
    """What is wrong with a text for the backbone in `folder` that reads `most` tokens, in one line; empty: nothing.

    Without this, `WanPipeline` cuts the text and logs nothing that a user sees. BackboneError where the tokenizer
    cannot be loaded.
    """
    text = _cleaned(text)
    if len(text.encode("utf-8", "surrogatepass")) + 2 <= most:  # a token has a byte or more, but for two marks
        return ""
    encoded = _tokenizer(folder / "tokenizer").encode(text)
    count = len(encoded.ids)
    if count <= most:
        return ""
    cut = encoded.offsets[most - 1][0]  # the last token kept is the mark of the end
    lost = text[text.rfind(" ", 0, cut + 1) + 1 :]
    shown = lost if len(lost) <= 200 else f"{lost[:200]}…"
    return (
        f"{(text if len(text) <= 40 else text[:40] + '…')!r} has {count} tokens, but the backbone reads {most} "
        f"(backbone.max_sequence_length): {shown!r} would be lost; shorten it"
    )


def _cleaned(text: str) -> str:
    """A text as `WanPipeline` gives it to its tokenizer."""
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


@cache
def _tokenizer(folder: Path) -> Tokenizer:
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except Exception as error:  # the libraries raise anything where a file fits no tokenizer
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(
            f"backbone {folder.parent}: its tokenizer cannot be loaded ({reason}); expected a WanPipeline folder"
        ) from error
    return tokenizer
