"""One lock for each key of a store: the kernel frees it when the process, and what it forked, has died."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from effivmt.store.disk_errors import store_errors


@contextmanager
def locked(root: Path, digest: str, *, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of a key digest in the store at `root`; yields whether it does, which is certain if it waits.

    The holder deletes the lock file at the end, so a process that waited may hold the lock of a deleted file; it then
    tries again. StoreError where the file system has no locks or the store cannot be written.
    """
    path = root / "locks" / f"{digest}.lock"
    while True:
        with store_errors(root):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        held = False
        try:
            with store_errors(root):
                free = _lock(lock, wait)
            held = free and os.fstat(lock).st_nlink > 0
            if held or not free:
                yield held
                return
        finally:
            if held:
                with suppress(OSError):  # a lock file that stays does no harm
                    path.unlink()
            os.close(lock)


def _lock(handle: int, wait: bool) -> bool:
    """Whether the file is now locked: not, where another holds it and this call may not wait."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
