"""Files that appear whole or not at all; a file that already has the right content stays untouched."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from effivmt.errors import EffiVMTError
from effivmt.store.artifact import Artifact
from effivmt.store.digests import sha256_file
from effivmt.store.store import Store


def export_file(store: Store, artifact: Artifact, name: str, target: Path) -> None:
    """`copy_verified` to a place that a user named: creates its folder, and an EffiVMTError names what went wrong."""
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_verified(store, artifact, name, target)


def copy_verified(store: Store, artifact: Artifact, name: str, target: Path) -> None:
    """Copies a file of an artifact unless the target has its digest; StoreError where the artifact is damaged."""
    digest = artifact.digest(name)
    if target.is_file() and sha256_file(target) == digest:
        return
    with atomic_write(target) as temporary:
        shutil.copyfile(artifact.file(name), temporary)
        if sha256_file(temporary) != digest:
            store.verify(artifact)


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Turns an operating-system error into an EffiVMTError that names `target`."""
    try:
        yield
    except OSError as error:
        raise EffiVMTError(f"{target} cannot be written ({error}); choose another place with --out") from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to, which then replaces `path` unless their contents are equal.

    After an error the temporary file is deleted and `path` is as it was.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        if not (path.is_file() and sha256_file(path) == sha256_file(temporary)):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
