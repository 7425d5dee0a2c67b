"""Files that appear whole or not at all; one that is right already stays untouched."""

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
    """Brings one file of an artifact to `target`, whole or not at all; StoreError where it is damaged."""
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_verified(store, artifact, name, target)


def copy_verified(store: Store, artifact: Artifact, name: str, target: Path) -> None:
    """Copies a listed file unless the target has its digest; StoreError when the copy has not."""
    digest = artifact.digest(name)
    if target.is_file() and sha256_file(target) == digest:
        return
    with atomic_write(target) as temporary:
        shutil.copyfile(artifact.file(name), temporary)
        if sha256_file(temporary) != digest:
            store.verify(artifact)


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Turns an operating-system error into an EffiVMTError that names the place."""
    try:
        yield
    except OSError as error:
        raise EffiVMTError(f"{target} cannot be written ({error}); choose another place with --out") from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to; a different file replaces `path`, an equal one or a failed one goes."""
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        if not (path.is_file() and sha256_file(path) == sha256_file(temporary)):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
