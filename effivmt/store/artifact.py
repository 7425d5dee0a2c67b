"""A pipeline step's result, and the key that identifies it: all that the result depends on."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from effivmt.errors import DamageError, ParamsError, StoreError
from effivmt.store.digests import encode, files_digest, plain, sha256_bytes
from effivmt.store.disk_errors import store_errors
from effivmt.store.record import drop_damaged
from effivmt.store.verification import fault_of

RESERVED = frozenset({"building", "locks", "scratch"})
"""Names that no stage may have, as a store keeps folders of these names."""


@dataclass(frozen=True)
class Key:
    """What an artifact depends on; two steps with equal keys give interchangeable results.

    stage: letters a-z and `_`; version: of the stage's code and file layout; inputs: role -> digest, where the role
    `clip` names the clip; params: only those that the stage reads; backbone: digest. ParamsError names a wrong part.
    """

    stage: str
    version: int
    inputs: Mapping[str, str]
    params: Mapping[str, object]
    backbone: str

    def __post_init__(self) -> None:
        if not isinstance(self.stage, str) or not re.fullmatch("[a-z_]+", self.stage) or self.stage in RESERVED:
            raise ParamsError(f"stage {self.stage!r:.60}: expected letters a-z and '_', and not {sorted(RESERVED)}")
        if type(self.version) is not int:
            raise ParamsError(f"version {self.version!r:.60} of stage {self.stage}: expected a whole number")
        mappings: dict[str, object] = {"inputs": self.inputs, "params": self.params}
        for name, mapping in mappings.items():
            if not isinstance(mapping, Mapping):
                raise ParamsError(f"{name} of stage {self.stage} is a {type(mapping).__name__}: expected a mapping")
            object.__setattr__(self, name, plain(mapping, name))  # a copy: later changes of the caller's have no effect
        digests: dict[str, object] = {f"inputs.{role}": value for role, value in self.inputs.items()}
        for name, digest in (digests | {"backbone": self.backbone}).items():
            if not isinstance(digest, str):
                raise ParamsError(f"{name} of stage {self.stage} is {digest!r:.60}: expected a digest (text)")

    @cached_property
    def parts(self) -> dict[str, object]:
        """The five parts by name, in JSON's own types, as a record holds them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all five parts: the artifact's address."""
        return sha256_bytes(encode(self.parts))


@dataclass(frozen=True)
class Artifact:
    """One published result: an immutable folder whose files are listed by relative posix name with their SHA-256.

    key: digest of the Key; inputs: the key's; seconds: wall time of the work when it was done; cached: whether it was
    done before this call; processor_seconds: CPU time of all threads, and peak_bytes: peak resident memory, while it
    was done (both None in records that older versions wrote); gpu_peak_bytes: peak of the tensors on a GPU, None where
    none was used.
    """

    key: str
    stage: str
    path: Path
    files: Mapping[str, str]
    inputs: Mapping[str, str]
    seconds: float
    cached: bool
    processor_seconds: float | None = None
    peak_bytes: int | None = None
    gpu_peak_bytes: int | None = None

    def file(self, name: str) -> Path:
        """Path of a listed file, whose content is the published one: it is read once per process and change.

        Where it is not, the artifact is dropped from the store and DamageError says why: the stage makes it again.
        StoreError where the file is not listed or cannot be read.
        """
        path, sha256 = self.path / name, self.digest(name)
        with store_errors(self.path.parents[1]):
            fault = fault_of(path, sha256)
        if fault:
            try:
                drop_damaged(self.path)
            except StoreError as error:
                raise StoreError(f"{path} {fault}, and cannot be dropped: {error}") from error
            if fault_of(path, sha256):  # no other process has made it again meanwhile
                raise DamageError(self.stage, path, fault)
        return path

    def read(self, name: str) -> bytes:
        """The published content of a listed file, whatever happens to the file meanwhile; errors as of `file`."""
        with self.opened(name) as path:
            content = path.read_bytes()
        if (found := sha256_bytes(content)) != self.digest(name):
            raise DamageError(self.stage, path, f"has changed (sha256 {found:.12}) while it was read")
        return content

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        """Path of a listed file, checked as by `file` before and after it is read; errors as of `file`.

        What a reader raises because the file changed under it gives way to the DamageError.
        """
        path = self.file(name)
        try:
            yield path
        finally:
            self.file(name)

    def folder(self, name: str) -> Path:
        """Path of a folder of listed files, each checked as by `file`; errors as of `file`."""
        names = [file for file in self.files if file.startswith(f"{name}/")]
        if not names:
            raise StoreError(f"artifact {self.path} lists no folder {name!r}: it has {', '.join(self.files)}")
        for file in names:
            self.file(file)
        return self.path / name

    def digest(self, name: str) -> str:
        """SHA-256 of a listed file; StoreError names the file and the artifact when it is not listed."""
        if name not in self.files:
            raise StoreError(f"artifact {self.path} lists no file {name!r}: it has {', '.join(self.files)}")
        return self.files[name]

    @property
    def content_digest(self) -> str:
        """SHA-256 over the names and contents of the files, whatever key made them."""
        return files_digest(self.files)
