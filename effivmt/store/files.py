"""Files that appear whole or not at all; a file that already has the right content stays untouched.

A copy of an artifact's file takes no room of its own on file systems that share blocks (Btrfs, XFS, bcachefs, ZFS,
NFS 4.2): the first change of either file parts them. It is never a hard link, through which a change of the copy would
damage the artifact.
"""

import fcntl
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

FICLONE = 0x40049409
"""Linux's request to share another file's blocks; Python names it from 3.12 on."""


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
        _copy(source, temporary)
        if (copied := sha256_file(temporary)) != digest:  # the file has changed since it was checked
            drop_damaged(artifact.path)
            raise DamageError(artifact.stage, source, f"has changed (sha256 {copied:.12}, expected {digest:.12})")


def _copy(source: Path, target: Path) -> None:
    """Copies a file's content to a new file, which shares the blocks where the file system can."""
    try:
        with source.open("rb") as content, target.open("xb") as copy:
            fcntl.ioctl(copy, FICLONE, content.fileno())
    except OSError:  # another file system, or one that cannot
        shutil.copyfile(source, target)


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
