"""Content-addressed artifacts: every pipeline step publishes its result here under the digest of all it depends on.

Layout of a store: `<stage>/<key digest>/` are the published artifacts, each with its `artifact.json`; `building/`,
`scratch/` and `locks/` hold, per key digest, what a running step needs. All may be deleted while nothing runs.
"""

import errno
import fcntl
import json
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from effivmt.errors import StoreError
from effivmt.store.artifact import Artifact, Key
from effivmt.store.digests import canonical_json, sha256_bytes, sha256_file
from effivmt.store.memory import peak_bytes, reset_peak

DEFAULT_STORE = Path(".effivmt/store")
"""Used where no store is named; in the working folder."""
RECORD = "artifact.json"
NEVER_COMPUTED = "never computed"
FULL = (errno.ENOSPC, errno.EDQUOT)
REMEDIES = {
    FULL: "the disk is full; free some space",
    (errno.EACCES, errno.EPERM, errno.EROFS): "permission is missing; change the folder's permissions",
    (errno.ENOTDIR, errno.EEXIST): "a file stands where a folder is expected; remove it",
    (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP): "its file system has no file locks; move it to a local disk",
}


class Store:
    """A folder of artifacts, shared by any number of threads and processes of one machine."""

    def __init__(self, root: Path):
        """`root` need not exist: the first `build` creates it."""
        self.root = Path(root)

    def find(self, key: Key) -> Artifact | None:
        """The key's artifact, or None if it is absent, damaged, or a listed file is missing or has another size.

        Reads sizes only (`verify` reads contents) and writes nothing. StoreError when the store cannot be read.
        """
        found = self._inspect(key)
        return found if isinstance(found, Artifact) else None

    def build(self, key: Key, make: Callable[[Path, Path], None], *, force: bool = False) -> Artifact:
        """The key's artifact, made by `make(out, scratch)` unless it is there; never made twice at once.

        out: an empty folder; what `make` leaves in it becomes the artifact. scratch: the key's folder for checkpoints;
        it survives a kill or an exception and goes after publication. force: make it even if it is there, from an
        empty scratch folder. An exception of `make` propagates and publishes nothing. StoreError when the store is not
        writable, the disk is full, or out is empty, holds a link or special file, or an `artifact.json`.
        """
        if not force and (found := self.find(key)):
            return found
        digest = key.digest
        out, scratch = self.root / "building" / digest, self.root / "scratch" / digest
        with self._locked(digest):
            if not force and (found := self.find(key)):
                return found
            with self._store_errors():
                for stale in (*out.parent.glob(f"{digest}*"), *((scratch,) if force else ())):
                    _remove(stale)
                out.mkdir(parents=True)
                scratch.mkdir(parents=True, exist_ok=True)
            try:
                reset_peak()
                started, busy = time.perf_counter(), time.process_time()
                with self._store_errors(*FULL):
                    make(out, scratch)
                cost = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - busy}
                cost["peak_bytes"] = peak_bytes()
                with self._store_errors():
                    artifact = self._publish(key, out, cost)
                    _remove(scratch)
            finally:
                shutil.rmtree(out, ignore_errors=True)
            return artifact

    def verify(self, artifact: Artifact) -> None:
        """Reads every file of an artifact again; StoreError names the first that is missing or has changed."""
        for name, expected in artifact.files.items():
            with self._store_errors():
                actual = sha256_file(artifact.file(name))
            if actual != expected:
                raise StoreError(
                    f"{name} of artifact {artifact.path} has sha256 {actual:.12}, expected {expected:.12}: it was"
                    f" damaged after it was made; run stage {artifact.stage} again with --force {artifact.stage}"
                )

    def explain(self, key: Key) -> str:
        """Why `build` would run: "hit" (it would not), "never computed", "damaged: ...", or what has changed.

        What has changed is relative to the newest artifact of the stage for the same clip: "params.steps: 50 -> 60".
        """
        found = self._inspect(key)
        if isinstance(found, Artifact):
            return "hit"
        if found != NEVER_COMPUTED or "clip" not in key.inputs:
            return found
        with self._store_errors():
            clip, paths = canonical_json(key.inputs["clip"]), (self.root / key.stage).glob(f"*/{RECORD}")
            records = [record for path in paths if (record := _read_record(path.parent, holding=clip))]
        same_clip = [record for record in records if record["key"]["inputs"].get("clip") == key.inputs["clip"]]
        if not same_clip:
            return NEVER_COMPUTED
        return _differences(max(same_clip, key=lambda record: record["created"])["key"], asdict(key))

    def _inspect(self, key: Key) -> Artifact | str:
        """The key's artifact, or the reason why there is none."""
        folder = self.root / key.stage / key.digest
        with self._store_errors():
            record = _read_record(folder)
            if record is None or record["key"] != asdict(key):
                return f"damaged: {RECORD} is missing or unreadable" if folder.is_dir() else NEVER_COMPUTED
            for name, entry in record["files"].items():
                try:
                    size = (folder / name).stat().st_size
                except FileNotFoundError:
                    return f"damaged: {name} is missing"
                if size != entry["size"]:
                    return f"damaged: {name} has {size} bytes of {entry['size']}"
        return _artifact(key, folder, record, cached=True)

    def _publish(self, key: Key, out: Path, cost: Mapping[str, float]) -> Artifact:
        """Seals the files of `out` with their record and moves the folder to its address in one rename."""
        record = {
            "key": asdict(key),
            "files": {name: _sealed(out / name) for name in _regular_files(out)},
            **cost,
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
            "versions": _versions(),
        }
        if not record["files"]:
            raise StoreError(f"stage {key.stage} wrote no file into {out}: nothing is published; mend the stage")
        record["checksum"] = sha256_bytes(canonical_json(record))
        (out / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="ascii")
        for path in (out / RECORD, *(Path(parent) for parent, _, _ in os.walk(out))):
            _sync(path)
        folder = self.root / key.stage / key.digest
        replaced = out.with_name(f"{out.name}.old")
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():
            os.rename(folder, replaced)
        os.rename(out, folder)
        _sync(folder.parent)
        _remove(replaced)
        return _artifact(key, folder, record, cached=False)

    @contextmanager
    def _locked(self, digest: str) -> Iterator[None]:
        """Holds the key's lock; the kernel frees it when the process, and what it forked, has died.

        The holder deletes the lock file at the end, so a process that waited may hold the lock of a deleted file; it
        then tries again.
        """
        path = self.root / "locks" / f"{digest}.lock"
        held = False
        while not held:
            with self._store_errors():
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                with self._store_errors():
                    fcntl.flock(lock, fcntl.LOCK_EX)
                held = os.fstat(lock).st_nlink > 0
                if held:
                    yield
            finally:
                if held:
                    with suppress(OSError):  # a lock file that stays does no harm
                        path.unlink()
                os.close(lock)

    @contextmanager
    def _store_errors(self, *only: int) -> Iterator[None]:
        """Turns an operating-system error (of the error numbers `only`, if given) into a StoreError with a remedy."""
        try:
            yield
        except OSError as error:
            if only and error.errno not in only:
                raise
            remedy = next((text for numbers, text in REMEDIES.items() if error.errno in numbers), "check the disk")
            raise StoreError(f"store {self.root}: {error}: {remedy}, or choose another folder with --store") from error


def _regular_files(out: Path) -> list[str]:
    """Sorted relative posix names of the files in a stage's folder; StoreError for what may not be in an artifact."""
    names = []
    for path in sorted(out.rglob("*")):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise StoreError(f"{path} is a link or a special file: a stage must write plain files; copy the content")
        if path == out / RECORD:
            raise StoreError(f"{path} was written by the stage: the store writes it; choose another name")
        if stat.S_ISREG(mode):
            names.append(path.relative_to(out).as_posix())
    return names


def _sealed(path: Path) -> dict:
    """SHA-256 and size (bytes) of a file that is on the disk for good."""
    _sync(path)
    return {"sha256": sha256_file(path), "size": path.stat().st_size}


def _sync(path: Path) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _versions() -> dict[str, str | None]:
    """Versions of what computes; None for a package that is not installed."""
    from importlib import metadata  # slow to import, and only a publication needs it

    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("torch", "diffusers", "peft", "effivmt"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _read_record(folder: Path, holding: bytes = b"") -> dict | None:
    """An artifact's record; None if it is absent, lacks the text `holding`, or fails its own checksum."""
    try:
        content = (folder / RECORD).read_bytes()
        if holding not in content:  # a search is many times faster than parsing every record of a catalog
            return None
        record = json.loads(content)
        checksum = record.pop("checksum")
        return record if checksum == sha256_bytes(canonical_json(record)) else None
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _artifact(key: Key, folder: Path, record: dict, cached: bool) -> Artifact:
    files = {name: entry["sha256"] for name, entry in sorted(record["files"].items())}
    cost = {name: record.get(name) for name in ("processor_seconds", "peak_bytes")}
    return Artifact(key.digest, key.stage, folder, files, key.inputs, record["seconds"], cached, **cost)


def _differences(old: dict, new: dict) -> str:
    """The parts of two keys that differ, with their values where short: "backbone changed; params.x: 5 -> 6"."""
    old, new = _leaves(old, ""), _leaves(new, "")
    changed = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, "absent"), new.get(name, "absent")
        if before != after:
            changed.append(f"{name}: {before} -> {after}" if len(before + after) < 40 else f"{name} changed")
    return "; ".join(changed)


def _leaves(value: dict, prefix: str) -> dict[str, str]:
    """Dotted name -> JSON text of every value in nested mappings that is not a mapping itself."""
    leaves: dict[str, str] = {}
    for name, item in value.items():
        nested = _leaves(item, f"{prefix}{name}.") if isinstance(item, dict) and item else None
        leaves |= nested or {f"{prefix}{name}": canonical_json(item).decode()}
    return leaves
