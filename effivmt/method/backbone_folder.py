"""A backbone's folder and the digest of its weights and configs, found without loading anything."""

import json
from dataclasses import dataclass
from pathlib import Path

from effivmt.config import find_embedded
from effivmt.errors import BackboneError
from effivmt.store.digests import canonical_json, sha256_bytes, sha256_tree
from effivmt.store.memo import read_memo, write_memo

COMPONENTS = ("tokenizer", "text_encoder", "transformer", "vae", "scheduler")


@dataclass(frozen=True)
class BackboneFolder:
    """id: the hub id, or the folder's name; digest: of all components (a model card beside them does not count)."""

    id: str
    path: Path
    digest: str


def find_backbone(path: str, memo: Path | None = None) -> BackboneFolder:
    """Finds a WanPipeline folder (downloading a hub id) and digests it; `memo` is a file that caches digests.

    Raises BackboneError where there is none, or one of another kind; DamageError, once, where `memo` was damaged.
    """
    folder = _find_folder(path)
    digest = _folder_digest(folder) if memo is None else _remembered_digest(folder, memo)
    return BackboneFolder(Path(path).name if Path(path).exists() else path, folder, digest)


def _find_folder(path: str) -> Path:
    folder = find_embedded(path)
    if not folder.is_dir():
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
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"backbone {folder} has no readable model_index.json; expected a WanPipeline folder"
        ) from error
    if index.get("_class_name") != "WanPipeline" or index.get("transformer_2", [None, None])[1] is not None:
        raise BackboneError(
            f"backbone {folder} is a {index.get('_class_name')}; expected a Wan-2.1 text-to-video "
            "WanPipeline with one transformer"
        )
    missing = [name for name in COMPONENTS if not (folder / name).is_dir()]
    if missing:
        raise BackboneError(f"backbone {folder} lacks {', '.join(missing)}; fetch or copy the folder again")
    return folder


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
