"""adapter.json: what an adapter was made from, and the digests of its files; read without torch."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from effivmt.errors import AdapterError
from effivmt.store.verification import known_sha256
from effivmt.untrusted import read_json, read_safetensors_header

DTYPES = ("F32", "F16", "BF16")
"""The dtypes of an adapter's weights, as safetensors names them."""
MOST_FILES = 32
"""An adapter folder lists at most this many files."""
MOST_BYTES = 4 * 2**30
"""A file of an adapter has at most this size; a LoRA of rank 128 on all attention layers of Wan 14B has 0.8 GiB."""


class BackboneFacts(TypedDict):
    """The backbone that an adapter was made for: hub id or folder name, and digest of its weights and configs.

    transformer: digest of the transformer's weights, absent up to version 0.1; commit: of the hub, absent for a folder.
    """

    id: str
    digest: str
    transformer: NotRequired[str]
    commit: NotRequired[str]


class ClipFacts(TypedDict):
    """The clip that an adapter was made from: its caption, and the digest of the latents that were tuned on."""

    caption: str
    digest: str


class MergedFacts(TypedDict):
    """A part of a merged adapter: its clip, where it says one, and the strengths of its looks and its motion."""

    clip: ClipFacts | None
    appearance: float
    motion: float


class AdapterFacts(TypedDict, total=False):
    """What an adapter was made from. `ranks`: LoRA rank of each branch; `params`: settings of the stages that made it.

    `params` are plain JSON values, of our own stages or of a peer method; a peer's adapter has no `ranks`. One that was
    merged from others has `merged`, and neither `clip` nor `params`.
    """

    backbone: BackboneFacts
    clip: ClipFacts
    ranks: Mapping[str, int]
    params: Mapping[str, object]
    merged: Sequence[MergedFacts]


class AdapterManifest(AdapterFacts):
    """adapter.json. `files`: SHA-256 of every other file of the folder, by name."""

    format: str
    version: int
    files: dict[str, str]


def read_facts(folder: Path | str) -> AdapterManifest:
    """adapter.json of an adapter folder; AdapterError where a file has another digest than it lists, or odd weights."""
    folder = Path(folder)
    try:
        facts = read_json(folder / "adapter.json")
    except OSError as error:
        raise AdapterError(f"{folder} is no adapter folder: adapter.json is missing or unreadable") from error
    except ValueError as error:
        raise AdapterError(
            f"adapter {folder}: adapter.json is damaged: it {error}; pull or make the adapter again"
        ) from error
    if not isinstance(facts, dict) or facts.get("format") != "effivmt-adapter" or facts.get("version") != 1:
        raise AdapterError(f"{folder} is no adapter of a format this version reads (effivmt-adapter, version 1)")
    backbone, files = facts.get("backbone"), facts.get("files")
    if backbone is not None and not (
        isinstance(backbone, dict)
        and backbone.keys() >= {"id", "digest"}
        and all(isinstance(backbone.get(name, ""), str) for name in BackboneFacts.__annotations__)
    ):
        raise AdapterError(f"adapter {folder}: adapter.json does not say its backbone; pull or make it again")
    if not isinstance(files, dict) or not {"spatial.safetensors", "temporal.safetensors", "heads.parquet"} <= set(
        files
    ):
        raise AdapterError(f"adapter {folder}: adapter.json does not list the adapter's files; pull or make it again")
    if len(files) > MOST_FILES:
        raise AdapterError(f"adapter {folder}: adapter.json lists {len(files)} files; expected at most {MOST_FILES}")
    for name, digest in files.items():
        path = folder / Path(name).name
        if not os.path.isfile(path):  # unlike Path.is_file, it never raises
            raise AdapterError(f"adapter {folder}: {name:.80} is missing; pull or make the adapter again")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise AdapterError(
                f"adapter {folder}: {name} has {size / 2**30:.1f} GiB; expected at most {MOST_BYTES / 2**30:.0f}"
            )
        if known_sha256(path) != digest:
            raise AdapterError(
                f"adapter {folder}: {name} is damaged (its sha256 differs from adapter.json); pull or make it again"
            )
    for branch in ("spatial", "temporal"):
        _check_weights(folder / f"{branch}.safetensors")
    return cast(AdapterManifest, facts)  # JSON, checked above as far as the program relies on it


def _check_weights(path: Path) -> None:
    """AdapterError unless each tensor of a file is a matrix of one of `DTYPES`, by the file's header."""
    try:
        entries = read_safetensors_header(path)
    except (OSError, ValueError) as error:
        raise AdapterError(f"adapter file {path} cannot be read: it {error}; make or pull the adapter again") from error
    for name, entry in entries.items():
        if entry.dtype not in DTYPES or len(entry.shape) != 2 or 0 in entry.shape:
            raise AdapterError(
                f"adapter file {path} holds {name:.80} as {entry.dtype:.20} {entry.shape[:8]}; expected a matrix of "
                f"{', '.join(DTYPES)}: make or pull the adapter again"
            )
