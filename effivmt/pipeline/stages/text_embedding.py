"""Text embeddings: one artifact per text, shared by all clips."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from effivmt.catalog import Clip, check_text
from effivmt.errors import ParamsError
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key
from effivmt.store.digests import sha256_bytes


def text_key(work: Workspace, text: str) -> Key:
    """The store key; ParamsError for a text that is too long or no Unicode."""
    check_text(text)
    params = work.params.backbone
    settings = {"max_sequence_length": params.max_sequence_length, "dtype": params.dtype, **work.tf32}
    return work.key("text", {"text": sha256_bytes(text.encode())}, settings)


def embed_clip(work: Workspace, clip: Clip) -> dict[str, Artifact]:
    """The embeddings of all texts of a clip, its prompts' and the negative prompt's among them.

    Made together, before the transformer is loaded: the text encoder, most of a small backbone, is loaded once a clip.
    """
    return embed_texts(work, [clip.caption, *clip.prompts, work.params.render.negative_prompt])


def clip_fault(work: Workspace, clip: Clip) -> tuple[str, str] | None:
    """The column, caption or prompts, of which the backbone would not read all, and what is wrong; None: none."""
    for column, texts in {"caption": (clip.caption,), "prompts": clip.prompts}.items():
        for text in texts:
            if fault := _fault(work, text):
                return column, fault
    return None


def check_texts(work: Workspace, texts: Iterable[str]) -> None:
    """ParamsError for a text, or for the negative prompt, of which the backbone would not read all."""
    for text in texts:
        check_text(text)  # before it is taken apart
        if fault := _fault(work, text):
            raise ParamsError(f"the text {fault}")
    if fault := _fault(work, work.params.render.negative_prompt):
        raise ParamsError(f"render.negative_prompt {fault}")


def _fault(work: Workspace, text: str) -> str:
    from effivmt.method.text_length import text_fault

    return text_fault(work.folder.path, text, work.params.backbone.max_sequence_length)


def embed_texts(work: Workspace, texts: Iterable[str]) -> dict[str, Artifact]:
    """The embedding (embedding.safetensors) of each text; the text encoder is loaded only for new ones.

    ParamsError, before any work, for a text of which the backbone would not read all.
    """
    texts = list(texts)
    check_texts(work, texts)
    return {
        text: work.store.build(text_key(work, text), partial(_embed, work, text=text)) for text in dict.fromkeys(texts)
    }


def _embed(work: Workspace, out: Path, _scratch: Path, *, text: str) -> None:
    from safetensors.torch import save_file

    work.backbone.keep("text_encoder", "tokenizer")
    save_file({"embedding": work.backbone.encode_texts([text])[0].contiguous()}, out / "embedding.safetensors")
