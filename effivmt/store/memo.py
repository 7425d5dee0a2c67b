"""A file that remembers digests between processes: what it says is checked, and computed again where it is damaged."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from effivmt.errors import DamageError
from effivmt.store.digests import canonical_json, sha256_bytes
from effivmt.store.disk_errors import store_errors
from effivmt.store.durable import remove


def read_memo(path: Path) -> dict[str, str]:
    """The digests by what they are of; empty where there is no file, or one that a version before 0.2 wrote.

    Those have no checksum. A damaged file is deleted, and DamageError raised: the next call finds none.
    """
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ValueError
        with store_errors(path.parent):
            if not path.exists():
                return {}
            content = path.read_bytes()
        document = json.loads(content)
        if set(document) == {"checksum", "digests"} and document["checksum"] == _checksum(document["digests"]):
            return document["digests"]
        if not all(len(name) == len(digest) == 64 for name, digest in document.items()):
            raise ValueError
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        with store_errors(path.parent):
            remove(path)
        raise DamageError("", path, "is damaged") from error
    return {}


def write_memo(path: Path, digests: Mapping[str, str]) -> None:
    """Writes digests by what they are of, whole or not at all; StoreError where the store cannot be written."""
    document = {"checksum": _checksum(digests), "digests": digests}
    with store_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _checksum(digests: object) -> str:
    return sha256_bytes(canonical_json(digests))
