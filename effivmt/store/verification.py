"""Whether files are still what they were: their digests, computed once per process and change of the file."""

import stat
import time
from pathlib import Path

from effivmt.store.digests import sha256_file

_SETTLED = 2.0
"""Seconds after which a later change of a file shows in its times, whose ticks are coarse on some file systems."""
MOST_KNOWN = 10_000
"""So many digests are remembered; a run of many clips meets each clip's files once."""
_known: dict[Path, tuple[tuple[int, ...], str]] = {}
"""Path -> what the file system says of the file, and its SHA-256."""


def known_sha256(path: Path) -> str:
    """SHA-256 of a file; a file that has not changed since an earlier call is not read again."""
    status = path.stat()
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    stamped, digest = _known.get(path, (None, ""))
    if stamped != stamp:
        digest = sha256_file(path)
        if time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED:
            while len(_known) >= MOST_KNOWN:
                del _known[next(iter(_known))]  # the one that was noted first
            _known[path] = stamp, digest
    return digest


def fault_of(path: Path, sha256: str) -> str:
    """What is wrong with a file that should have this digest, as "is missing"; empty where nothing is wrong."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return "is no plain file any more"
        found = known_sha256(path)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    return "" if found == sha256 else f"has changed (sha256 {found:.12}, expected {sha256:.12})"


def reread(folder: Path) -> None:
    """Forgets the digests of the files below a folder, so that the next look reads them again."""
    for path in [path for path in _known if path.is_relative_to(folder)]:
        del _known[path]
