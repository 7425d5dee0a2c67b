"""Pulls registered adapters and verifies every byte; needs neither torch nor Prefect.

A version's tag holds the digest of its adapter.json, which lists the digests of all other files, so a change of the
artifact store alone is detected.
"""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from effivmt.errors import AdapterError, EffiVMTError, ParamsError
from effivmt.method.adapter_manifest import read_facts
from effivmt.store.digests import sha256_file
from effivmt.store.disk_errors import write_errors
from effivmt.store.durable import sync
from effivmt_tasks.tracking.location import check_reachable, database_file, public_uri, tracking_uri

ADAPTER_SHA256 = "adapter_sha256"
"""Tag of a version: SHA-256 of adapter.json."""
MODEL_FOLDER = "model"
"""Where a run keeps the model folder of the version it made."""
ADAPTER = "artifacts/adapter"
"""The adapter folder within a model folder."""
PREFIX = "models:/"
_REFERENCE = re.compile(r"models:/([^/@:]+)(?:@([^/@:]+)|/(\d+))")


@dataclass(frozen=True)
class Version:
    """A version in the registry: its number, its model folder, and the digest of its adapter.json."""

    reference: str
    number: str
    source: str
    sha256: str


def pull(reference: str, out: Path) -> Path:
    """Brings the adapter of `models:/NAME@ALIAS` or `models:/NAME/VERSION` to the folder `out`, whole or not at all.

    An `out` that holds it already stays. ParamsError for another form; AdapterError where the registry does not know it
    or the artifact store does not give the very files that were registered; EffiVMTError where MLflow does not answer
    or `out` is in use.
    """
    return fetch(resolve(reference), out)


def pull_to_cache(reference: str, cache: Path) -> Path:
    """The adapter's folder below `cache`, by its digest; one that is damaged there is pulled again."""
    version = resolve(reference)
    folder = cache / version.sha256
    if folder.exists() and not _holds(folder, version):
        with write_errors(folder):
            shutil.rmtree(folder)
    return fetch(version, folder)


def resolve(reference: str) -> Version:
    """Asks the registry; errors as of `pull`."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ParamsError(f"{reference} is no registered adapter; expected models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, number = match.groups()
    uri = tracking_uri()
    file = database_file(uri)
    if file is not None:
        if not file.is_file():  # MLflow would make an empty one
            raise EffiVMTError(f"there is no registry at {public_uri(uri)}; set MLFLOW_TRACKING_URI to where it is")
        import sqlalchemy  # noqa: F401  (without it, as in the small install, MLflow gives another reason)
    check_reachable(uri)
    with _asking(reference):
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
        source = client.get_model_version_download_uri(name, found.version)
    if ADAPTER_SHA256 not in found.tags:
        raise AdapterError(f"{reference} is no adapter that effivmt registered: it has no tag {ADAPTER_SHA256}")
    return Version(reference, str(found.version), source, found.tags[ADAPTER_SHA256])


def fetch(version: Version, out: Path) -> Path:
    """Downloads a version beside `out`, verifies it and moves it there in one step; errors as of `pull`."""
    if _holds(out, version):
        return out
    with write_errors(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise EffiVMTError(f"--out {out} is in use; choose a folder that does not exist")
        out.parent.mkdir(parents=True, exist_ok=True)
    with _folder_beside(out) as temporary:
        with write_errors(out), _asking(version.reference):
            from mlflow.artifacts import download_artifacts

            source = f"{version.source.rstrip('/')}/{ADAPTER}"
            folder = Path(download_artifacts(source, dst_path=str(temporary), tracking_uri=tracking_uri()))
        _verify(folder, version)
        with write_errors(out):
            for path in (*folder.iterdir(), folder):
                sync(path)
            os.replace(folder, out)
            sync(out.parent)
    return out


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` for a download, which goes at the end, and with it those of pulls that were killed.

    Each is locked while its pull is at work; the kernel frees the lock of a process that dies.
    """
    prefix = f".{out.name}.pulled-"
    with write_errors(out):
        for path in out.parent.iterdir():
            if path.name.startswith(prefix) and (handle := _lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(handle)
        temporary = out.parent / f"{prefix}{secrets.token_hex(8)}"
        temporary.mkdir()
        handle = _lock(temporary)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """A handle that locks a folder until it is closed; None where another has the lock, or there are no locks."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _verify(folder: Path, version: Version) -> None:
    """AdapterError unless a folder holds the registered files and no others (a store that moved gives an empty one)."""
    head = f"{version.reference} (version {version.number}) is not what was registered:"
    tail = "; nothing was kept. Mend the artifact store, or register the adapter again"
    manifest = folder / "adapter.json"
    if not manifest.is_file():
        raise AdapterError(f"{head} the artifact store has no adapter.json at {version.source}: moved or emptied{tail}")
    if sha256_file(manifest) != version.sha256:
        raise AdapterError(f"{head} the digest of adapter.json differs from the registry's{tail}")
    try:
        listed = {"adapter.json", *read_facts(folder)["files"]}
    except AdapterError as error:
        reason = str(error).removeprefix(f"adapter {folder}: ").partition(";")[0]
        raise AdapterError(f"{head} {reason}{tail}") from error
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if strangers := sorted(found - listed):
        raise AdapterError(f"{head} {strangers[0]} is none of its files{tail}")


def _holds(folder: Path, version: Version) -> bool:
    """Whether a folder holds the version, whole."""
    if not (folder / "adapter.json").is_file():
        return False
    try:
        _verify(folder, version)
    except AdapterError:
        return False
    return True


@contextmanager
def _asking(reference: str) -> Iterator[None]:
    """Turns MLflow's errors into an AdapterError of one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise AdapterError(
            f"{reference} cannot be fetched from MLflow at {public_uri(tracking_uri())}: {reason}"
        ) from error
