"""Files that appear whole or not at all; a file that already has the right content stays untouched."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from effivmt.errors import DamageError
from effivmt.store.artifact import Artifact
from effivmt.store.digests import sha256_file
from effivmt.store.disk_errors import write_errors
from effivmt.store.record import drop_damaged


def export_file(artifact: Artifact, name: str, target: Path) -> None:
    """`copy_verified` to a place that a user named: creates its folder, and an EffiVMTError names what went wrong."""
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_verified(artifact, name, target)


def export_folder(artifact: Artifact, name: str, target: Path) -> None:
    """Copies a folder of an artifact to a place that a user named, which appears whole or not at all.

    EffiVMTError where the target is in use or cannot be written, DamageError where the artifact is damaged.
    """
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{secrets.token_hex(8)}")
        temporary.mkdir()
        try:
            for file in artifact.files:
                if file.startswith(f"{name}/"):
                    (temporary / file).parent.mkdir(parents=True, exist_ok=True)
                    copy_verified(artifact, file, temporary / file)
            os.replace(temporary / name, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def copy_verified(artifact: Artifact, name: str, target: Path) -> None:
    """Copies a file of an artifact unless the target has its digest; DamageError where the artifact is damaged."""
    digest = artifact.digest(name)
    if target.is_file() and sha256_file(target) == digest:
        return
    with atomic_write(target) as temporary:
        source = artifact.file(name)
        shutil.copyfile(source, temporary)
        if (copied := sha256_file(temporary)) != digest:  # the file has changed since it was checked
            drop_damaged(artifact.path)
            raise DamageError(artifact.stage, source, f"has changed (sha256 {copied:.12}, expected {digest:.12})")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` to write to, which then replaces `path` unless their contents are equal.

    After an error the temporary file is deleted and `path` is as it was.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        if not _equal(path, temporary):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _equal(path: Path, other: Path) -> bool:
    """Whether two files have the same content; the first need not be there."""
    return path.is_file() and path.stat().st_size == other.stat().st_size and sha256_file(path) == sha256_file(other)
