"""What the operating system says of a disk that cannot be used, as one line with a remedy."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from effivmt.errors import DiskFullError, EffiVMTError, StoreError

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_REMEDY = "the disk is full; free some space"
REMEDIES = {
    (errno.EACCES, errno.EPERM, errno.EROFS): "permission is missing; change the folder's permissions",
    (errno.ENOTDIR, errno.EEXIST): "a file stands where a folder is expected; remove it",
    (errno.EISDIR,): "a folder stands where a file is expected; remove it",
    (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP): "its file system has no file locks; move it to a local disk",
}
_QUOTED = (*(os.strerror(number) for number in FULL), "database or disk is full")
"""How the errors of safetensors, of the ffmpeg program and of SQLite tell of a full disk: in their text alone."""


def is_full(error: BaseException | None) -> bool:
    """Whether something could not be written because the disk is full, by the error or by one that it came from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(text in str(error) for text in _QUOTED):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def store_errors(root: Path, *, only_full: bool = False) -> Iterator[None]:
    """Turns an operating-system error into a StoreError with a remedy, any writer's out-of-space into a DiskFullError.

    only_full: other errors stay what they are.
    """

    def told(error: OSError) -> StoreError | None:
        remedy = next((text for numbers, text in REMEDIES.items() if error.errno in numbers), "check the disk")
        if root.is_symlink() and not root.exists():
            remedy = f"it is a link to {os.readlink(root)}, which is not there; make that folder"
        why = f"store {root}: {error}: {remedy}, or choose another folder with --store"
        return None if only_full else StoreError(why)

    with _disk_errors(lambda error: f"store {root}: {error}: {FULL_REMEDY}, or choose another with --store", told):
        yield


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Turns an operating-system error into an EffiVMTError that names `target`, any out-of-space into DiskFullError."""

    def told(error: OSError) -> EffiVMTError:
        return EffiVMTError(f"{target} cannot be written ({error}); choose another place with --out")

    with _disk_errors(
        lambda error: f"{target} cannot be written ({error}): {FULL_REMEDY}, or choose another place with --out", told
    ):
        yield


@contextmanager
def _disk_errors(full: Callable[[Exception], str], told: Callable[[OSError], EffiVMTError | None]) -> Iterator[None]:
    """Raises DiskFullError with the text of `full` for any writer's out-of-space, and for another operating-system
    error what `told` makes of it (None: the error itself)."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if is_full(error):
            raise DiskFullError(full(error)) from error
        if isinstance(error, OSError) and (better := told(error)) is not None:
            raise better from error
        raise
