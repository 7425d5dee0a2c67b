"""Content-addressed artifacts: every pipeline step publishes its result here under the digest of all it depends on.

Layout of a store: `<stage>/<key digest>/` are the published artifacts, each with its `artifact.json`; `building/`,
`scratch/` and `locks/` hold, per key digest, what a running step needs. All may be deleted while nothing runs.
"""

import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from effivmt.errors import EffiVMTError, StoreError
from effivmt.store.artifact import Artifact, Key
from effivmt.store.digests import canonical_json, sha256_file
from effivmt.store.disk_errors import store_errors
from effivmt.store.durable import remove, sync
from effivmt.store.locks import locked
from effivmt.store.memory import gpu_peak_bytes, peak_bytes, reset_peak
from effivmt.store.record import RECORD, fault_of_size, mark_used, read_record, seal
from effivmt.store.remote import Remote

DEFAULT_STORE = Path(".effivmt/store")
"""Used where no store is named; in the working folder."""
NEVER_COMPUTED = "never computed"
REMOTE = "in the remote store"
RESUMABLE = 14 * 24 * 3600
"""Seconds for which the checkpoints of a run that was stopped, and never run again, are kept."""


def last_change(folder: Path) -> float:
    """When a folder, or a file in it, was last changed, in seconds since the epoch; now, where it is just deleted."""
    try:
        return max(path.lstat().st_mtime for path in (folder, *folder.glob("*")))
    except FileNotFoundError:
        return time.time()


class Store:
    """A folder of artifacts, shared by any number of threads and processes of one machine.

    remote: where artifacts are looked for that the folder lacks, and published that are made here.
    """

    def __init__(self, root: Path, remote: Remote | None = None):
        """`root` need not exist: the first `build` creates it."""
        self.root, self.remote = Path(root), remote

    def find(self, key: Key) -> Artifact | None:
        """The key's artifact, or None if it is absent, damaged, or a listed file is missing or has another size.

        Reads sizes only (`Artifact.file` reads contents) and writes nothing. StoreError when the store cannot be read.
        """
        found = self._inspect(key)
        return found if isinstance(found, Artifact) else None

    def build(self, key: Key, make: Callable[[Path, Path], None], *, force: bool = False) -> Artifact:
        """The key's artifact, made by `make(out, scratch)` unless the store or the remote has it; never twice at once.

        out: an empty folder; what `make` leaves in it becomes the artifact. scratch: the key's folder for checkpoints;
        it survives a kill or an unforeseen exception, and goes after publication, and after an EffiVMTError that a
        second try would meet again (one that is no StoreError). force: make it even if it is there, from an empty
        scratch folder. An exception of `make` propagates and publishes nothing. DiskFullError when the disk is full;
        StoreError when the store is not writable, or out is empty, holds a link or special file, or an `artifact.json`.
        """
        if not force and (found := self._hit(key)):
            return found
        digest = key.digest
        out, scratch = self.root / "building" / digest, self.root / "scratch" / digest
        with locked(self.root, digest):
            if not force and (found := self._hit(key)):
                return found
            with store_errors(self.root):
                self._tidy()
                for stale in (
                    *out.parent.glob(f"{digest}*"),
                    *((scratch,) if force or not _is_folder(scratch) else ()),
                ):
                    remove(stale)
                out.mkdir(parents=True)
                scratch.mkdir(parents=True, exist_ok=True)
            try:
                if not force and (found := self._fetch(key, out)):
                    remove(scratch)
                    return found
                reset_peak()
                started, busy = time.perf_counter(), time.process_time()
                with store_errors(self.root, only_full=True):
                    make(out, scratch)
                cost = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - busy}
                cost["peak_bytes"] = peak_bytes()
                if (on_gpu := gpu_peak_bytes()) is not None:
                    cost["gpu_peak_bytes"] = on_gpu
                with store_errors(self.root):
                    artifact = self._publish(key, out, cost)
                    remove(scratch)
                if self.remote is not None:
                    self.remote.publish(artifact.path, replace=force)
            except StoreError:
                raise
            except EffiVMTError:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
            finally:
                shutil.rmtree(out, ignore_errors=True)
            return artifact

    def _hit(self, key: Key) -> Artifact | None:
        """What `find` finds; notes that it was used."""
        if found := self.find(key):
            mark_used(found.path)
        return found

    def explain(self, key: Key) -> str:
        """Why `build` would run: "hit" (it would not), "never computed", "damaged: ...", or what has changed.

        It would only fetch what is "in the remote store".

        What has changed is relative to the newest artifact of the stage for the same clip: "params.steps: 50 -> 60".
        """
        found = self._inspect(key)
        if isinstance(found, Artifact):
            return "hit"
        if found == NEVER_COMPUTED and self.remote is not None and self.remote.has(key.stage, key.digest):
            return REMOTE
        if found != NEVER_COMPUTED or "clip" not in key.inputs:
            return found
        with store_errors(self.root):
            clip, paths = canonical_json(key.inputs["clip"]), (self.root / key.stage).glob(f"*/{RECORD}")
            records = [record for path in paths if (record := read_record(path.parent, holding=clip))]
        same_clip = [record for record in records if record["key"]["inputs"].get("clip") == key.inputs["clip"]]
        if not same_clip:
            return NEVER_COMPUTED
        return _differences(max(same_clip, key=lambda record: record["created"])["key"], asdict(key))

    def _inspect(self, key: Key) -> Artifact | str:
        """The key's artifact, or the reason why there is none."""
        folder = self.root / key.stage / key.digest
        with store_errors(self.root):
            try:
                if not stat.S_ISDIR(folder.lstat().st_mode):
                    return "damaged: its folder is no folder any more"
            except FileNotFoundError:
                return NEVER_COMPUTED
            record = read_record(folder)
            if record is None or record["key"] != key.parts:
                return f"damaged: {RECORD} is missing or unreadable"
            for name, entry in record["files"].items():
                if fault := fault_of_size(folder / name, entry["size"]):
                    return f"damaged: {name} {fault}"
        return _artifact(key, folder, record, cached=True)

    def _publish(self, key: Key, out: Path, cost: Mapping[str, float]) -> Artifact:
        """Seals the files of `out` with their record and moves the folder to its address."""
        record = {
            "key": asdict(key),
            "files": {name: _sealed(out / name) for name in _regular_files(out)},
            **cost,
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
            "versions": _versions(),
        }
        if not record["files"]:
            raise StoreError(f"stage {key.stage} wrote no file into {out}: nothing is published; mend the stage")
        (out / RECORD).write_bytes(seal(record))
        return self._place(key, out, record, cached=False)

    def _fetch(self, key: Key, out: Path) -> Artifact | None:
        """The key's artifact from the remote; None, and `out` is empty, where it has none."""
        if self.remote is None:
            return None
        record = self.remote.fetch(asdict(key), key.digest, out)
        with store_errors(self.root):
            if record is not None:
                for name in record["files"]:
                    sync(out / name)
                return self._place(key, out, record, cached=True)
            remove(out)
            out.mkdir()
        return None

    def _place(self, key: Key, out: Path, record: dict, *, cached: bool) -> Artifact:
        """Moves an artifact, whose files are on the disk, from `out` to its address in one rename."""
        for path in (out / RECORD, *(Path(parent) for parent, _, _ in os.walk(out))):
            sync(path)
        folder = self.root / key.stage / key.digest
        replaced = out.with_name(f"{out.name}.old")
        folder.parent.mkdir(exist_ok=True)
        if os.path.lexists(folder):
            os.rename(folder, replaced)
        os.rename(out, folder)
        sync(folder.parent)
        remove(replaced)
        return _artifact(key, folder, record, cached=cached)

    def _tidy(self) -> None:
        """Deletes what killed runs left: half-made artifacts, and checkpoints that no run has gone on from for long."""
        for path in (self.root / "building").glob("*"):
            self._remove_unless_locked(path)
        for path in (self.root / "scratch").glob("*"):
            if time.time() - last_change(path) > RESUMABLE:
                self._remove_unless_locked(path)

    def _remove_unless_locked(self, path: Path) -> None:
        with locked(self.root, path.name.partition(".")[0], wait=False) as free:
            if free:
                remove(path)


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
    sync(path)
    return {"sha256": sha256_file(path), "size": path.stat().st_size}


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


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


def _artifact(key: Key, folder: Path, record: dict, cached: bool) -> Artifact:
    files = {name: entry["sha256"] for name, entry in sorted(record["files"].items())}
    cost = {name: record.get(name) for name in ("processor_seconds", "peak_bytes", "gpu_peak_bytes")}
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
