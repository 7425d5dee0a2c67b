"""A second level of the store, which hosts without a shared disk share: a folder at any URL that fsspec knows.

Layout: `files/<sha256>` are the files of all artifacts, by content; `<stage>/<key>.json` is the artifact.json of one. A
record is put there after its files, and what is fetched is checked against the digests, so nothing half-published is
ever taken, whatever two hosts do at once. Everything there may be deleted: it is computed again.
"""

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from effivmt.errors import ParamsError, StoreError
from effivmt.store.digests import canonical_json, sha256_file
from effivmt.store.record import RECORD, read_record, seal, unseal
from effivmt.store.verification import fault_of

EXTRA = 'pip install "effivmt[remote]"'
TRIES = 3
PAUSE = 1.0
"""Seconds before the second try; four times as many before each further one."""
REST = 600.0
"""Seconds for which a remote that does not answer is not asked again."""
MOST_RECORD_BYTES = 16 * 2**20
_OBJECTS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss")
"""Protocols of object stores: they have no folders, and to make one would make a bucket."""
_LASTING = (FileNotFoundError, PermissionError, NotImplementedError, TypeError, ValueError)
"""Errors that a second try would meet again: a wrong address, option or permission."""
_S3 = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"total_max_attempts": 1}}}
"""Seconds, and tries of botocore below those of s3fs and ours, where fsspec's own configuration says nothing of S3: by
default a host that is gone would cost minutes."""
Result = TypeVar("Result")


class Remote:
    """The remote store at `url`; `tell` is called with one line for what a user should know.

    Where it does not answer, that is told once, and it is left alone for some minutes: a run goes on without it.
    """

    def __init__(self, url: str, tell: Callable[[str], None]) -> None:
        """ParamsError where the URL is none, or of a kind for which a package is missing. Asks nothing yet."""
        import fsspec

        self.url, self._tell, self._rests_until = url, tell, 0.0
        self.name = re.sub(r"//[^/@]*@", "//", url.rstrip("/"))
        self._protocol, separator, path = url.partition("://")
        if not separator or not path:
            raise ParamsError(f"remote store {self.name!r:.200} is no URL; expected one such as s3://bucket/folder")
        try:
            fsspec.get_filesystem_class(self._protocol)
        except ImportError as error:
            raise ParamsError(f"remote store {self.name}: {' '.join(str(error).split())}: {EXTRA}") from error
        except ValueError as error:
            raise ParamsError(f"remote store {self.name}: fsspec does not know {self._protocol}://") from error

    def has(self, stage: str, key: str) -> bool:
        """Whether it has an artifact's record; False where it does not answer."""
        return self._ask(lambda fs, root: _record(fs, root, stage, key)) is not None

    def check(self) -> None:
        """Writes and deletes an empty file there; StoreError, which says why, where that fails."""
        try:
            fs, root = self._open()
            self._upload(fs, b"", f"{root}/.written-by-a-check")
            fs.rm_file(f"{root}/.written-by-a-check")
        except Exception as error:
            reason = _line(error)
            raise StoreError(f"remote store {self.name} cannot be used ({reason}); check EFFIVMT_REMOTE") from error

    def fetch(self, key: Mapping[str, object], digest: str, out: Path) -> dict | None:
        """The record of a key's artifact, which is now in the empty folder `out`, each file with its SHA-256.

        None where the remote has none, does not answer, or has a damaged one, which is told and dropped there; `out`
        may then hold some files.
        """
        stage = str(key["stage"])
        record = self._ask(lambda fs, root: _record(fs, root, stage, digest))
        if record is None or canonical_json(record["key"]) != canonical_json(key):
            return None
        for name, file in record["files"].items():
            got = self._ask(partial(_get, file=file, target=out / name))
            if got is None:
                return None
            if not got:
                self._tell(
                    f"remote store {self.name}: {stage}/{digest:.12}/{name} is damaged there: it is dropped, and made "
                    "again"
                )
                self._ask(partial(_drop, stage=stage, key=digest, sha256=file["sha256"]))
                return None
        (out / RECORD).write_bytes(seal(record))
        return record

    def publish(self, folder: Path, *, replace: bool = False) -> bool:
        """Whether the remote has the whole artifact in `folder` now, or one that another host has made of its key.

        replace: even where it has one of the key. Nothing is published of an artifact that is damaged here.
        """
        record = read_record(folder)
        if record is None or any(fault_of(folder / name, file["sha256"]) for name, file in record["files"].items()):
            return False
        return self._ask(partial(self._put, folder=folder, record=record, replace=replace)) is not None

    def _put(self, fs: Any, root: str, *, folder: Path, record: dict, replace: bool) -> bool:
        stage, key = folder.parent.name, folder.name
        there = None if replace else _record(fs, root, stage, key)
        if there is not None:
            if there["files"] != record["files"]:
                self._tell(
                    f"remote store {self.name}: another host has made {stage}/{key:.12}, too, with other bytes: each "
                    "keeps its own"
                )
            return True
        for name, file in record["files"].items():
            path = f"{root}/files/{file['sha256']}"
            if _size(fs, path) != file["size"]:
                self._upload(fs, folder / name, path)
        self._upload(fs, folder / RECORD, f"{root}/{stage}/{key}.json")
        return True

    def _upload(self, fs: Any, content: Path | bytes, path: str) -> None:
        if self._protocol not in _OBJECTS:
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if isinstance(content, Path):
            fs.put_file(str(content), path)
        else:
            fs.pipe_file(path, content)

    def _open(self) -> tuple[Any, str]:
        """fsspec's file system and the path of the remote in it."""
        import fsspec

        configured = fsspec.config.conf.get(self._protocol, {})
        options = {"use_listings_cache": False} | (_S3 if self._protocol in ("s3", "s3a") else {}) | configured
        fs, root = fsspec.core.url_to_fs(self.url, **options)
        return fs, root.rstrip("/")

    def _ask(self, work: Callable[[Any, str], Result]) -> Result | None:
        """What `work` returns, tried again where that may help; None, which is told, where there is no answer."""
        if time.monotonic() < self._rests_until:
            return None
        for number in range(TRIES):
            try:
                return work(*self._open())
            except Exception as error:  # noqa: BLE001  (each file system has errors of its own, and none may end a run)
                reason = _line(error)
                if isinstance(error, _LASTING) or number + 1 == TRIES:
                    break
                time.sleep(PAUSE * 4**number)
        self._rests_until = time.monotonic() + REST
        self._tell(
            f"remote store {self.name} does not answer ({reason}): going on without it for {REST / 60:.0f} minutes; "
            "effivmt store push publishes later what it lacks"
        )
        return None


def _record(fs: Any, root: str, stage: str, key: str) -> dict | None:
    """The record of an artifact there; None where there is none, or none that is whole and harmless."""
    try:
        content = fs.cat_file(f"{root}/{stage}/{key}.json", end=MOST_RECORD_BYTES)
    except FileNotFoundError:
        return None
    record = unseal(content)
    if record is None or not isinstance(record.get("key"), dict) or not isinstance(record.get("files"), dict):
        return None
    return record if all(_harmless(*file) for file in record["files"].items()) else None


def _harmless(name: str, file: object) -> bool:
    """Whether a file's name stays in its folder, and its digest and size are such."""
    inside = not name.startswith("/") and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))
    digest, size = (file.get("sha256"), file.get("size")) if isinstance(file, dict) else (None, None)
    return inside and name != RECORD and isinstance(size, int) and re.fullmatch("[0-9a-f]{64}", str(digest)) is not None


def _get(fs: Any, root: str, *, file: Mapping[str, Any], target: Path) -> bool:
    """Whether a file is there, and whole at `target` now; the second try is for faults of the transfer."""
    path = f"{root}/files/{file['sha256']}"
    target.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        if _size(fs, path) != file["size"]:
            return False
        fs.get_file(path, str(target))
        if sha256_file(target) == file["sha256"]:
            return True
    return False


def _drop(fs: Any, root: str, *, stage: str, key: str, sha256: str) -> None:
    """Deletes a record, and a file of it."""
    for path in (f"{root}/{stage}/{key}.json", f"{root}/files/{sha256}"):
        with suppress(FileNotFoundError):
            fs.rm_file(path)


def _size(fs: Any, path: str) -> int | None:
    try:
        return fs.info(path)["size"]
    except FileNotFoundError:
        return None


def _line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
