"""artifact.json: what an artifact was made from, its files with their digests, and its own checksum."""

import json
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from effivmt.store.digests import canonical_json, encode, sha256_bytes
from effivmt.store.disk_errors import store_errors
from effivmt.store.durable import remove
from effivmt.store.locks import locked
from effivmt.store.verification import fault_of, reread

RECORD = "artifact.json"
HOUR = 3600


def seal(record: dict) -> bytes:
    """The content of artifact.json: the record with its checksum, the SHA-256 of its canonical JSON."""
    sealed = record | {"checksum": sha256_bytes(canonical_json(record))}
    return json.dumps(sealed, indent=1, sort_keys=True).encode("ascii")


def unseal(content: bytes) -> dict | None:
    """The record in the content of an artifact.json; None if it fails its own checksum."""
    try:
        record = json.loads(content)
        checksum = record.pop("checksum")
        return record if checksum == sha256_bytes(encode(record)) else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def read_record(folder: Path, holding: bytes = b"") -> dict | None:
    """An artifact's record; None if it is absent, lacks the text `holding`, or fails its own checksum."""
    try:
        if not stat.S_ISREG((folder / RECORD).lstat().st_mode):
            return None
        content = (folder / RECORD).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    # a search is many times faster than parsing every record of a catalog
    return unseal(content) if holding in content else None


def fault_of_size(path: Path, size: int) -> str:
    """What is wrong with a file that should have this size (bytes); empty where nothing is wrong. Reads no content."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    if not stat.S_ISREG(found.st_mode):
        return "is no plain file any more"
    return "" if found.st_size == size else f"has {found.st_size} bytes of {size}"


def mark_used(folder: Path) -> None:
    """Notes that an artifact was used, as its record's modification time, at most once an hour.

    Nothing is noted in a store that cannot be written.
    """
    with suppress(OSError):
        if time.time() - (folder / RECORD).stat().st_mtime > HOUR:
            os.utime(folder / RECORD)


def drop_damaged(folder: Path) -> None:
    """Takes the record of a damaged artifact away: nothing finds it then, and its stage makes it anew.

    Its files stay until then, for the processes that read them. An artifact that another process has made anew since
    stays as it is. StoreError where the store cannot be written.
    """
    root = folder.parents[1]
    with locked(root, folder.name), store_errors(root):
        reread(folder)
        record = read_record(folder)
        if record is None or any(fault_of(folder / name, file["sha256"]) for name, file in record["files"].items()):
            remove(folder / RECORD)
