"""A backbone's folder and the digest of its weights and configs, found without loading anything."""

import os
from dataclasses import dataclass
from pathlib import Path

from effivmt.config import find_embedded
from effivmt.errors import BackboneError
from effivmt.store.digests import canonical_json, sha256_bytes, sha256_tree
from effivmt.store.memo import read_memo, write_memo
from effivmt.untrusted import check_sizes, read_json_object, read_safetensors_header

LAYERS = {"transformer": "blocks.", "text_encoder": "encoder.block.", "vae": None}
"""The components with weights, and how the names of a layer's weights begin where `num_layers` counts the layers."""
MOST_FILES = 256
"""A component has its weights in at most this many files; Wan 14B's transformer has 12."""
COMPONENTS = ("tokenizer", "text_encoder", "transformer", "vae", "scheduler")


@dataclass(frozen=True)
class BackboneFolder:
    """id: the hub id, or the folder's name; digest: of all components (a model card beside them does not count)."""

    id: str
    path: Path
    digest: str


def find_backbone(path: str, memo: Path | None = None) -> BackboneFolder:
    """Finds a WanPipeline folder (downloading a hub id) and digests it; `memo` is a file that caches digests.

    Raises BackboneError where there is none, or one of another kind, or one whose configs and weights do not belong
    together: the libraries would take minutes or gigabytes to notice. DamageError, once, where `memo` was damaged.
    """
    folder = _find_folder(path)
    for name in LAYERS:
        _check_model(folder, name)
    try:
        check_sizes(read_json_object(folder / "scheduler" / "scheduler_config.json"))
    except (OSError, ValueError) as error:
        raise _unusable(folder, "scheduler", " ".join(str(error).split())[:300]) from error
    digest = _folder_digest(folder) if memo is None else _remembered_digest(folder, memo)
    return BackboneFolder(Path(path).name if Path(path).exists() else path, folder, digest)


def _find_folder(path: str) -> Path:
    folder = find_embedded(path)
    if not os.path.isdir(folder):  # unlike Path.is_dir, it never raises
        from huggingface_hub import snapshot_download  # slow to import, and a local folder needs none of it
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(path, allow_patterns=["model_index.json", *(f"{c}/*" for c in COMPONENTS)]))
        except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise BackboneError(
                f"backbone {path} is no folder here and cannot be fetched as a hub id ({type(error).__name__}); "
                "give a WanPipeline folder or a hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
            ) from error
    try:
        index = read_json_object(folder / "model_index.json")
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"backbone {folder} has no readable model_index.json; expected a WanPipeline folder"
        ) from error
    if index.get("_class_name") != "WanPipeline" or index.get("transformer_2") not in (None, [None, None]):
        raise BackboneError(
            f"backbone {folder} is a {index.get('_class_name')!s:.40}; expected a Wan-2.1 text-to-video "
            "WanPipeline with one transformer"
        )
    missing = [name for name in COMPONENTS if not (folder / name).is_dir()]
    if missing:
        raise BackboneError(f"backbone {folder} lacks {', '.join(missing)}; fetch or copy the folder again")
    return folder


def _check_model(folder: Path, name: str) -> None:
    """BackboneError unless a component has a sound config and weights, as many layers in one as in the other."""
    try:
        config = read_json_object(folder / name / "config.json")
        check_sizes(config)
        tensors = _tensors(folder / name)
    except (OSError, ValueError) as error:
        raise _unusable(folder, name, " ".join(str(error).split())[:300]) from error
    if (prefix := LAYERS[name]) is not None:
        layers = {tensor.removeprefix(prefix).partition(".")[0] for tensor in tensors if tensor.startswith(prefix)}
        if config.get("num_layers") != len(layers):
            reason = (
                f"its config has num_layers {config.get('num_layers')!r:.20}, its weights have {len(layers)} layers"
            )
            raise _unusable(folder, name, reason)


def _tensors(part: Path) -> set[str]:
    """The names of the tensors in a component's safetensors files; ValueError where there are none."""
    files = sorted(part.glob("*.safetensors"))
    if not 1 <= len(files) <= MOST_FILES:
        raise ValueError(f"it has {len(files)} files of weights (*.safetensors), expected 1 to {MOST_FILES}")
    names: set[str] = set()
    for file in files:
        try:
            names |= read_safetensors_header(file).keys()
        except ValueError as error:
            raise ValueError(f"{file} {error}") from error
    return names


def _unusable(folder: Path, name: str, reason: str) -> BackboneError:
    return BackboneError(
        f"backbone {folder}: its {name} cannot be loaded ({reason}); expected a WanPipeline folder: copy it again"
    )


def _remembered_digest(folder: Path, memo: Path) -> str:
    """Digest of all component files, which `memo` remembers by the files' names, sizes and modification times."""
    stamps = [
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for name in COMPONENTS
        for path in sorted((folder / name).rglob("*"))
        if path.is_file()
    ]
    signature = sha256_bytes(canonical_json([str(folder.resolve()), stamps]))
    known = read_memo(memo)
    if signature not in known:
        known[signature] = _folder_digest(folder)
        write_memo(memo, known)
    return known[signature]


def _folder_digest(folder: Path) -> str:
    """Digest of all component files."""
    return sha256_bytes(canonical_json([sha256_tree(folder / name) for name in COMPONENTS]))
