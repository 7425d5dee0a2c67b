"""The one way in for settings, manifests and headers that others have made: bounded in kind of file, size and depth.

Every function raises OSError where a file cannot be opened, and ValueError where it is not what it should be. The text
of the ValueError goes on where the caller has named the file ("is a pipe, expected a regular file").
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

MIB = 2**20
JSON_BYTES = 2 * MIB
"""A JSON file has at most this size; read, it takes about twenty times as much memory."""
YAML_BYTES = 64 * 1024
"""A YAML text has at most this size; a larger one takes seconds to parse."""
DEPTH = 32
"""Lists and mappings are nested at most this deep."""
YAML_NODES = 20_000
"""A YAML document has at most this many values once its aliases and merges are written out."""
MOST = {"num_layers": 512, "num_hidden_layers": 512, "num_decoder_layers": 512, "num_res_blocks": 16}
MOST |= {"rope_max_seq_len": 2**14, "dim_mult": 8}
"""The largest value of a model's setting that costs time or memory in proportion; of a list, its length."""
LARGEST = 2**20
"""The largest whole number in a model's config; the vocabulary of Wan's text encoder has 256,384 entries."""
HEADER_BYTES = 2 * MIB
"""The header of a safetensors file has at most this size: some 15,000 tensors."""


@dataclass(frozen=True)
class TensorEntry:
    """A tensor as the header of a safetensors file lists it: dtype ("F32", "BF16" and so on) and shape."""

    dtype: str
    shape: tuple[int, ...]


class _Refused(ValueError):
    """A text is of its language, but it is beyond a bound."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file, through links, to read its bytes; never waits for a pipe's other end.

    ValueError for a folder, pipe, socket or device.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(mode := os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError(f"is a {_kind(mode)}, expected a regular file")
    return open(handle, "rb")


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"is larger than {_size(limit)}")
    return content


def read_text(path: Path, limit: int, encoding: str = "utf-8") -> str:
    """The text of a regular file of at most `limit` bytes."""
    try:
        return read_bytes(path, limit).decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start})") from error


def read_json(path: Path) -> Any:
    """The JSON value in a file."""
    return parse_json(read_text(path, JSON_BYTES))


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; ValueError where it holds another value."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"holds {_shown(value)}, expected a JSON object")
    return value


def parse_json(text: str) -> Any:
    """The value of a JSON text, nested at most `DEPTH` deep."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise _Refused(f"is nested more than {DEPTH} deep") from error
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    level = [value]
    for _ in range(DEPTH):
        level = [item for outer in level for item in _items(outer)]
        if not level:
            return value
    raise _Refused(f"is nested more than {DEPTH} deep")


def read_yaml(path: Path) -> Any:
    """The value of a YAML file, as of `parse_yaml`."""
    return parse_yaml(read_text(path, YAML_BYTES))


def parse_yaml(text: str) -> Any:
    """The value of a YAML text in YAML's own types: bounded in size, in depth, and in values after its aliases."""
    if len(text) > YAML_BYTES:
        raise ValueError(f"is larger than {_size(YAML_BYTES)}")
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):  # one by one: nothing is built before its depth is known
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise _Refused(f"is nested more than {DEPTH} deep")
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except _Refused:
        raise
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # All but the first are what the constructors of plain values raise, such as that of `!!bool maybe`.
        raise ValueError(f"is not valid YAML: {' '.join(str(error).split())[:300]}") from error


def read_safetensors_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file by name, without their data; ValueError unless the file has their size."""
    with open_regular(path) as file:
        total = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= HEADER_BYTES:
            raise ValueError(f"is no safetensors file, or has a header of more than {_size(HEADER_BYTES)}")
        header = parse_json(file.read(length).decode("utf-8", errors="replace"))
    if not isinstance(header, dict):
        raise ValueError("is no safetensors file: its header is no JSON object")
    entries, end = {}, 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(stop)]} if (
                all(type(side) is int and side >= 0 for side in shape) and 0 <= start <= stop
            ):
                entries[name], end = TensorEntry(dtype, tuple(shape)), max(end, stop)
            case _:
                raise ValueError(f"lists a tensor {_shown(name)} without a dtype, shape and place")
    if total != 8 + length + end:
        raise ValueError(f"has {total} bytes, expected {8 + length + end}: it is cut short or has been added to")
    return entries


def unpacked_bytes(facts: "FileMetaData") -> int:
    """The bytes that a Parquet file has once it is unpacked, by its metadata.

    Of its groups of rows: pyarrow ends the process, with no exception, where it is asked for the facts of a column that
    are damaged.
    """
    return sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))


def check_sizes(config: Mapping[str, object]) -> None:
    """ValueError for a setting in a model's config, or in a config within it, that only a giant would have."""
    for key, value in config.items():
        if isinstance(value, dict):
            check_sizes(value)
            continue
        numbers = [item for item in (value if isinstance(value, list) else [value]) if type(item) is int]
        size = len(value) if isinstance(value, list) else max(numbers, default=0)
        most = MOST.get(key, LARGEST)
        if size > most or any(abs(number) > LARGEST for number in numbers):
            raise ValueError(f"has {key:.40} {_shown(value)}, expected at most {most}")


def _items(value: object) -> Iterator[object]:
    """The lists and mappings within a list or mapping."""
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return (item for item in values if isinstance(item, dict | list))


def _count(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """How many values a node stands for, each alias counted as often as it is used; ValueError above `YAML_NODES`."""
    if node in known:
        if known[node] < 0:
            raise _Refused("holds a list or mapping that contains itself")
        return known[node]
    known[node] = -1
    total = 1
    if isinstance(node, yaml.CollectionNode):
        for item in node.value:
            total += sum(_count(part, known) for part in (item if isinstance(item, tuple) else (item,)))
            if total > YAML_NODES:
                raise _Refused(f"stands for more than {YAML_NODES} values, counting its aliases")
    known[node] = total
    return total


def _shown(value: object) -> str:
    return repr(value)[:60] if isinstance(value, str | int | float | bool | None) else f"a {type(value).__name__}"


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB else f"{count // 1024} KiB"


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")
