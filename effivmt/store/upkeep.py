"""What a store holds, how large it is, and what of it can go."""

import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from effivmt.store.artifact import RESERVED
from effivmt.store.disk_errors import store_errors
from effivmt.store.durable import remove, sync
from effivmt.store.locks import locked
from effivmt.store.record import RECORD, fault_of_size, read_record
from effivmt.store.store import RESUMABLE, last_change

PULLED = "pulled"
"""The folder of adapters that were pulled to render with them; they are no artifacts."""
DAY = 24 * 3600
Kind = Literal["artifact", "damaged", "checkpoints", "unfinished"]


@dataclass(frozen=True)
class Entry:
    """An artifact, or what a running or stopped stage has under its key.

    path: its folder; size: bytes of all files; used: when it was last used, by an artifact's record or a file's last
    change, in seconds since the epoch; seconds: what the work took; inputs, files: SHA-256 of what an artifact was
    made of, and of its files.
    """

    kind: Kind
    path: Path
    size: int
    used: float
    stage: str = ""
    seconds: float = 0.0
    inputs: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """The digest of its key, 64 hex digits."""
        return self.path.name.partition(".")[0]


@dataclass(frozen=True)
class Usage:
    """How much one kind of content takes: `count` entries of `size` bytes, which took `seconds` to make."""

    name: str
    count: int
    size: int
    seconds: float


def list_entries(root: Path) -> list[Entry]:
    """All artifacts by stage, the least recently used first, then checkpoints and unfinished work.

    StoreError where the store cannot be read; a store that is not there has none.
    """
    with store_errors(root):
        stages = [path for path in _folders(root) if path.name not in (*RESERVED, PULLED)]
        artifacts = [_artifact(folder) for stage in stages for folder in _folders(stage)]
        kinds: tuple[tuple[Kind, str], ...] = (("checkpoints", "scratch"), ("unfinished", "building"))
        others = [
            Entry(kind, path, _size(path), last_change(path))
            for kind, name in kinds
            for path in sorted((root / name).glob("*"))
        ]
    return [*sorted(artifacts, key=lambda entry: (entry.stage, entry.used)), *others]


def usage(root: Path) -> list[Usage]:
    """How much each stage's artifacts take, then everything else in the store; only what is there."""
    groups: dict[str, list[Entry]] = {}
    for entry in list_entries(root):
        groups.setdefault(entry.stage or entry.kind, []).append(entry)
    found = [
        Usage(name, len(own), sum(entry.size for entry in own), sum(entry.seconds for entry in own))
        for name, own in groups.items()
    ]
    with store_errors(root):
        if pulled := _folders(root / PULLED):
            found.append(Usage("pulled adapters", len(pulled), sum(map(_size, pulled)), 0.0))
    return found


def free_bytes(root: Path) -> int:
    """Bytes that are free on the disk of the store, or of the nearest folder above it that exists."""
    there = next(path for path in (root.resolve(), *root.resolve().parents) if path.exists())
    return shutil.disk_usage(there).free


def removable(
    entries: Sequence[Entry], *, keep_days: int | None = None, needed: Collection[str] | None = None
) -> list[Entry]:
    """What can go of a store's entries.

    Damaged artifacts, unfinished work, and checkpoints that nothing went on from for 14 days always can (unfinished
    work that still runs is locked). keep_days: so can artifacts, and checkpoints, that nothing has used for so many
    days. needed: keys of artifacts that may not go. With both, an artifact goes only where both allow it; with neither,
    none goes. What an artifact that stays was made of stays, too: a run needs it to find that artifact.
    """
    latest = time.time() - DAY * keep_days if keep_days is not None else None
    artifacts = [entry for entry in entries if entry.kind == "artifact"]
    if latest is None and needed is None:
        kept = {entry.key for entry in artifacts}
    else:
        kept = {entry.key for entry in artifacts if latest is not None and entry.used >= latest}
        kept = with_origins(kept | set(needed or ()), artifacts)
    oldest = {"checkpoints": max(time.time() - RESUMABLE, latest or 0.0)}
    return [
        entry
        for entry in entries
        if (entry.key not in kept if entry.kind == "artifact" else entry.used < oldest.get(entry.kind, float("inf")))
    ]


def with_origins(keys: Iterable[str], artifacts: Sequence[Entry]) -> set[str]:
    """These keys, and those of the artifacts whose files these artifacts were made of, and so on."""
    return _reach(keys, artifacts, lambda entry: entry.inputs, lambda entry: entry.files)


def with_descendants(keys: Iterable[str], artifacts: Sequence[Entry]) -> set[str]:
    """These keys, and those of the artifacts that were made of these artifacts' files, and so on."""
    return _reach(keys, artifacts, lambda entry: entry.files, lambda entry: entry.inputs)


def _reach(
    keys: Iterable[str],
    artifacts: Sequence[Entry],
    near: Callable[[Entry], Collection[str]],
    far: Callable[[Entry], Collection[str]],
) -> set[str]:
    """These keys, and those of the artifacts with a digest in `far` that one of these has in `near`, and so on."""
    by_digest: dict[str, list[Entry]] = {}
    for entry in artifacts:
        for digest in far(entry):
            by_digest.setdefault(digest, []).append(entry)
    found = set(keys)
    ahead = [entry for entry in artifacts if entry.key in found]
    while ahead:
        for digest in near(ahead.pop()):
            for entry in by_digest.get(digest, ()):
                if entry.key not in found:
                    found.add(entry.key)
                    ahead.append(entry)
    return found


def prune(root: Path, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bool]]:
    """Removes entries, and yields each with whether it went: not one that a process works on, or has used since.

    A folder is moved away in one rename before anything in it is deleted, so nothing half-removed is ever found.
    StoreError where the store cannot be written.
    """
    for entry in entries:
        with locked(root, entry.key, wait=False) as free, store_errors(root):
            gone = free and _last_use(entry) <= entry.used
            if gone:
                away = root / "building" / f"{entry.key}.pruned"  # the next run deletes what a kill leaves here
                away.parent.mkdir(exist_ok=True)
                remove(away)
                os.rename(entry.path, away)
                sync(entry.path.parent)
                remove(away)
        yield entry, gone


def _last_use(entry: Entry) -> float:
    """When an entry was last used; the end of time for one that is not there any more."""
    try:
        if entry.kind == "artifact":
            return (entry.path / RECORD).stat().st_mtime
        return last_change(entry.path) if entry.path.exists() else float("inf")
    except FileNotFoundError:
        return float("inf")


def _artifact(folder: Path) -> Entry:
    record = read_record(folder)
    if record is None or any(fault_of_size(folder / name, file["size"]) for name, file in record["files"].items()):
        return Entry("damaged", folder, _size(folder), last_change(folder), stage=folder.parent.name)
    return Entry(
        "artifact",
        folder,
        _size(folder),
        (folder / RECORD).stat().st_mtime,
        stage=folder.parent.name,
        seconds=record["seconds"],
        inputs=frozenset(record["key"]["inputs"].values()),
        files=frozenset(file["sha256"] for file in record["files"].values()),
    )


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except FileNotFoundError:
        return []


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = (Path(parent) / name for parent, _, names in os.walk(path) for name in names)
    total = 0
    for file in (path, *files):
        try:
            status = file.lstat()
        except FileNotFoundError:  # a run that goes on deletes its own
            continue
        total += 0 if file.is_dir() else status.st_size
    return total
