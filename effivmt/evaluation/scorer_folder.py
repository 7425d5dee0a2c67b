"""The scorer's folder: a CLIPModel, embedded, local or of the hub, checked by its small files and headers alone."""

import os
from dataclasses import dataclass
from pathlib import Path

from effivmt.embedded import find_embedded
from effivmt.errors import BackboneError
from effivmt.hub import absent_files, fetch
from effivmt.store.digests import files_digest, sha256_tree
from effivmt.store.verification import known_sha256
from effivmt.untrusted import check_sizes, read_json_object, read_safetensors_header

_CONFIGS = ("*config.json",)
_FILES = (*_CONFIGS, "*.safetensors", "*.safetensors.index.json", "*token*.json", "vocab.json", "merges.txt")
_NEEDED = ("text_projection.weight", "visual_projection.weight", "vision_model.embeddings.class_embedding")


@dataclass(frozen=True)
class ScorerFolder:
    """A scorer on this machine, and the digest of its files."""

    path: Path
    digest: str


def find_scorer(name: str, *, weights: bool = True) -> ScorerFolder:
    """Finds a CLIPModel folder or hub id and digests it; of a hub id the kind is checked before weights are fetched.

    weights False: the weights are not fetched. BackboneError where there is none, or one that cannot be used.
    """
    folder = find_embedded(name)
    if os.path.isdir(folder):  # unlike Path.is_dir, it never raises
        check_kind(folder)
        _check_weights(folder)
        return ScorerFolder(folder, sha256_tree(folder))
    folder, commit = fetch("scorer", name, None, _CONFIGS)
    check_kind(folder)
    fetch("scorer", name, commit, _FILES, weights=weights)
    absent = {} if weights or has_weights(folder) else absent_files(name, commit, folder, _FILES)
    if not absent:
        _check_weights(folder)
    here = {path.name: known_sha256(path) for pattern in _FILES for path in folder.glob(pattern)}
    return ScorerFolder(folder, files_digest(here | absent))


def has_weights(folder: Path) -> bool:
    """Whether a folder has weights at all."""
    return any(folder.glob("*.safetensors"))


def check_kind(folder: Path) -> None:
    """BackboneError unless a folder has the config of a CLIPModel."""
    try:
        config = read_json_object(folder / "config.json")
        check_sizes(config)
    except (OSError, ValueError) as error:
        raise unusable(folder, f"has no readable config.json ({error})") from error
    kind = config.get("model_type")
    if kind != "clip":
        raise unusable(folder, f"holds a model of type {kind!s:.40}")


def unusable(folder: Path, reason: str) -> BackboneError:
    """The error of a scorer that cannot be used."""
    return BackboneError(
        f"scorer {folder} {reason}; give a folder saved by transformers' CLIPModel, its tokenizer and image processor"
    )


def _check_weights(folder: Path) -> None:
    """BackboneError unless a folder has the weights of both halves of a CLIPModel, and a tokenizer's files."""
    tensors: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        try:
            tensors |= read_safetensors_header(file).keys()
        except (OSError, ValueError) as error:
            raise unusable(folder, f"cannot be loaded ({file} {error})") from error
    if missing := [name for name in _NEEDED if name not in tensors]:
        raise unusable(folder, f"lacks weights {', '.join(missing)}")
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
        raise unusable(folder, "has no tokenizer.json")
