"""Files of models on the Hugging Face hub: fetched by pattern, and the digests of those that are not fetched."""

import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from effivmt.errors import BackboneError

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.zip")
"""How the large files of a model end."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(
    what: str, name: str, revision: str | None, patterns: Sequence[str], *, weights: bool = True
) -> tuple[Path, str | None]:
    """The folder with the files of a hub id that match, fetched where they are not here, and the commit they are of.

    what: "backbone" or "scorer"; revision: a commit, branch or tag; None: the main branch. weights False leaves
    `WEIGHTS` out. Without a connection the folder has what was fetched earlier. BackboneError where the hub has no such
    model or revision, or cannot be reached and nothing was fetched.
    """
    from huggingface_hub import snapshot_download  # slow to import, and a local folder needs none of it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RevisionNotFoundError

    ignored = None if weights else list(WEIGHTS)
    try:
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=list(patterns), ignore_patterns=ignored)
        )
    except RevisionNotFoundError as error:
        raise BackboneError(
            f"{what} {name} has no revision {revision!r:.80} on the hub; give a commit, branch or tag that it has"
        ) from error
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BackboneError(
            f"{what} {name} is no folder here and cannot be fetched as a hub id ({type(error).__name__}); "
            "give a folder, or a hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers, and a connection to the hub"
        ) from error
    return folder, folder.name if _COMMIT.fullmatch(folder.name) else None


def absent_files(name: str, commit: str | None, folder: Path, patterns: Sequence[str]) -> dict[str, str]:
    """SHA-256, as the hub lists them, of the large files that match and are not in `folder`, by their names.

    BackboneError where the hub cannot be asked, or has no digest of one of them.
    """
    from huggingface_hub import HfApi, RepoFile
    from huggingface_hub.errors import HfHubHTTPError

    try:
        listed = list(HfApi().list_repo_tree(name, recursive=True, revision=commit))
    except (HfHubHTTPError, OSError) as error:
        raise BackboneError(
            f"the weights of {name} are not on this machine, and the hub cannot be asked for their digests "
            f"({type(error).__name__}); connect to the hub, or fetch them: hf download {name}"
        ) from error
    absent = {}
    for file in listed:
        if not isinstance(file, RepoFile) or (folder / file.path).exists():
            continue
        if any(fnmatch(file.path, pattern) for pattern in patterns):
            if file.lfs is None:
                raise BackboneError(f"the hub has no digest of {file.path} of {name}; fetch it: hf download {name}")
            absent[file.path] = file.lfs.sha256
    return absent
