"""SHA-256 digests of values (by their canonical JSON), of bytes, of files and of folders."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from effivmt.errors import ParamsError, StoreError


def canonical_json(value: object) -> bytes:
    """The canonical JSON of a value: sorted keys, no whitespace, ASCII, floats by `repr`, tuples as lists.

    ParamsError names a field that is not JSON: NaN, infinity, a path, an array, a mapping with keys that are not text.
    """
    return encode(plain(value, "value"))


def encode(value: object) -> bytes:
    """The canonical JSON of what was read from JSON; ValueError where it holds a number that is not finite."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def sha256_bytes(content: bytes) -> str:
    """SHA-256 of bytes, as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's content, streamed; 64 hex digits. OSError when the file cannot be read."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_tree(folder: str | Path) -> str:
    """SHA-256 over the relative names and contents of all files below a folder, streamed; 64 hex digits.

    Links count as what they point to (hub caches are made of links); hidden entries are left out (downloaders keep
    timestamps there). StoreError for a link to a folder around it or a special file; OSError for what cannot be read.
    """
    return files_digest({name: sha256_file(path) for name, path in visible_files(folder).items()})


def visible_files(folder: str | Path) -> dict[str, Path]:
    """The files that `sha256_tree` reads, by their relative posix names; raises what it raises."""
    return dict(_visible_files(Path(folder), "", ()))


def plain(value: object, where: str) -> Any:
    """A deep copy in JSON's own types; ParamsError names the place of anything else, by the path `where`."""
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        if wrong := [name for name in value if not isinstance(name, str)]:
            raise ParamsError(f"{where} has the key {wrong[0]!r:.60}: expected text; write it as text")
        return {name: plain(item, f"{where}.{name}") for name, item in value.items()}
    raise ParamsError(
        f"{where} is {value!r:.60} ({type(value).__name__}): expected text, a finite number, true, false, null, or a"
        " list or mapping of these; convert it"
    )


def _visible_files(folder: Path, prefix: str, around: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Relative posix name and path of every file below a folder, through links; `around`: real paths of its parents."""
    around = (*around, os.path.realpath(folder))
    for path in folder.iterdir():
        name = f"{prefix}{path.name}"
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if os.path.realpath(path) in around:
                raise StoreError(f"{path} links to a folder around it: remove the link")
            yield from _visible_files(path, f"{name}/", around)
        elif path.is_file() or not path.exists():  # reading a broken link raises its OSError
            yield name, path
        else:
            raise StoreError(f"{path} is neither a file nor a folder: remove it")


def files_digest(files: Mapping[str, str]) -> str:
    """SHA-256 of a mapping from file name to SHA-256."""
    return sha256_bytes(canonical_json(files))
