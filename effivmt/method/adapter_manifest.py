"""adapter.json: what an adapter was made from, and the digests of its files; read without torch."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from effivmt.errors import AdapterError
from effivmt.method.experts import HIGH, LOW, named
from effivmt.store.verification import known_sha256
from effivmt.untrusted import TensorEntry, read_json, read_safetensors_header

DTYPES = ("F32", "F16", "BF16")
"""The dtypes of an adapter's weights, as safetensors names them."""
_FORMATS = (("effivmt-adapter", 1), ("effivmt-adapter", 2))
"""Version 2 has LoRAs of one or both transformers of a backbone that has two; before it, none of those was taken."""
REGION = "region.safetensors"
"""The file of an adapter, and of the stage `mask`, that says where in latents the adapter acts beside others: a tensor
`region`, float32 (1, 1, F, h, w), in [0, 1]."""
MOST_POSITIONS = 2**24
"""A region has at most this many positions; a clip of 81 frames at 720p has 302,400."""
MOST_FILES = 32
"""An adapter folder lists at most this many files."""
MOST_BYTES = 4 * 2**30
"""A file of an adapter has at most this size; a LoRA of rank 128 on all attention layers of Wan 14B has 0.8 GiB."""


class BackboneFacts(TypedDict):
    """The backbone that an adapter was made for: hub id or folder name, and digest of its weights and configs.

    transformer: digest of the transformer's weights, absent up to version 0.1; transformer_2: of a second one's;
    commit: of the hub, absent for a folder.
    """

    id: str
    digest: str
    transformer: NotRequired[str]
    transformer_2: NotRequired[str]
    commit: NotRequired[str]


class PipelineSettings(TypedDict, total=False):
    """What a pipeline's model_index.json says beyond that of Wan 2.1, by its names.

    boundary_ratio: the noise level from which on the first of two transformers samples; expand_timesteps: whether the
    transformer is given a timestep for each token; image_to_video: whether it is a WanImageToVideoPipeline.
    """

    boundary_ratio: float
    expand_timesteps: bool
    image_to_video: bool


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
    merged from others has `merged`, and neither `clip` nor `params`. `pipeline`: how the backbone's pipeline differs
    from that of Wan 2.1; absent where it does not.
    """

    backbone: BackboneFacts
    clip: ClipFacts
    ranks: Mapping[str, int]
    params: Mapping[str, object]
    pipeline: PipelineSettings
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
    if not isinstance(facts, dict) or (facts.get("format"), facts.get("version")) not in _FORMATS:
        raise AdapterError(f"{folder} is no adapter of a format this version reads (effivmt-adapter, version 1 or 2)")
    backbone, files = facts.get("backbone"), facts.get("files")
    if backbone is not None and not (
        isinstance(backbone, dict)
        and backbone.keys() >= {"id", "digest"}
        and all(isinstance(backbone.get(name, ""), str) for name in BackboneFacts.__annotations__)
    ):
        raise AdapterError(f"adapter {folder}: adapter.json does not say its backbone; pull or make it again")
    if not isinstance(files, dict) or not all(_of_expert(name) <= files.keys() for name in expert_names(facts)):
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
    for name in sorted(set().union(*(_of_expert(expert) for expert in expert_names(facts)))):
        if name.endswith(".safetensors"):
            _check_weights(folder / name)
    if REGION in files:
        _check_region(folder / REGION)
    return cast(AdapterManifest, facts)  # JSON, checked above as far as the program relies on it


def expert_names(facts: Mapping[str, object]) -> tuple[str, ...]:
    """The names of the experts that an adapter has LoRAs of, in the order of sampling; `("",)` for the only one.

    facts: adapter.json. An adapter of a backbone with two transformers has LoRAs of the high-noise one at least.
    """
    if facts.get("version") == 1:
        return ("",)
    files = facts.get("files")
    has_low = isinstance(files, dict) and not _of_expert(LOW).isdisjoint(files)
    return (HIGH, LOW) if has_low else (HIGH,)


def _of_expert(name: str) -> set[str]:
    """The files that an adapter has of an expert."""
    return {
        named("spatial", name) + ".safetensors",
        named("temporal", name) + ".safetensors",
        named("heads", name) + ".parquet",
    }


def _header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a file by its header."""
    try:
        return read_safetensors_header(path)
    except (OSError, ValueError) as error:
        raise AdapterError(f"adapter file {path} cannot be read: it {error}; make or pull the adapter again") from error


def _check_region(path: Path) -> None:
    """AdapterError unless a file holds a region alone, by the file's header."""
    match _header(path):
        case {"region": TensorEntry("F32", (1, 1, frames, height, width)), **others} if (
            not others and 0 < frames * height * width <= MOST_POSITIONS
        ):
            return
        case entries:
            held = ", ".join(f"{name:.80} as {it.dtype:.20} {it.shape[:8]}" for name, it in list(entries.items())[:3])
            raise AdapterError(
                f"adapter file {path} holds {held or 'nothing'}; expected region as F32 (1, 1, F, h, w), of at most "
                f"{MOST_POSITIONS} positions: make or pull the adapter again"
            )


def _check_weights(path: Path) -> None:
    """AdapterError unless each tensor of a file is a matrix of one of `DTYPES`, by the file's header."""
    for name, entry in _header(path).items():
        if entry.dtype not in DTYPES or len(entry.shape) != 2 or 0 in entry.shape:
            raise AdapterError(
                f"adapter file {path} holds {name:.80} as {entry.dtype:.20} {entry.shape[:8]}; expected a matrix of "
                f"{', '.join(DTYPES)}: make or pull the adapter again"
            )
