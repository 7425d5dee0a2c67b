"""Catalog files as rows: CSV as spreadsheets write it, JSON Lines and Parquet, bounded in size.

A row is a dict of cells by column, or `Unreadable`. Columns that are none of a catalog's stay in it; cells that are not
given do not.
"""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from effivmt.errors import printable
from effivmt.untrusted import open_regular, parse_json, read_bytes, unpacked_bytes

REQUIRED = ("clip", "video", "prompts")
OPTIONAL = ("caption", "class", "start", "end", "appearance_images", "seed", "motion_of", "region", "images")
LISTS = ("prompts", "images")
NUMBERS = ("start", "end", "seed")
SEPARATOR = " | "
"""As a cell of prompts is written; the blanks may be left out."""
COLUMN_SEPARATORS = (",", ";", "\t")
MOST_BYTES = 64 * 2**20
"""A catalog file has at most this size, a Parquet file also when it is unpacked."""
MOST_ROWS = 200_000
NAMES_SHOWN = 20
"""An error lists at most this many columns."""
_BATCH = 8
"""Rows that are unpacked at once: a short file can have a text of megabytes in every row."""


class WrongHeading(ValueError):
    """The columns of a table are not those of a catalog."""


@dataclass(frozen=True)
class Unreadable:
    """A row or cell that its file holds but that cannot be read, and why."""

    reason: str


def read_rows(path: Path) -> Iterator[object]:
    """The rows of a file with one of the suffixes in `READERS`.

    Raises WrongHeading, once, where the columns of a table are not a catalog's; OSError, ValueError or csv.Error where
    the file cannot be read.
    """
    return READERS[path.suffix.lower()](path)


def miswritten(name: object) -> str:
    """The column that a name means which is written otherwise, with capitals or blanks; empty: none."""
    meant = str(name).strip().lower()
    return meant if meant in REQUIRED + OPTIONAL and meant != name else ""


def _read_csv(path: Path) -> Iterator[object]:
    """Empty cells count as not given, and rows of empty cells, which spreadsheets leave at the end, as no rows."""
    csv.field_size_limit(MOST_BYTES)  # at the module's own limit of 128 KiB, one long cell would end the reading
    text, before = _read_text(path), 0
    heading, _, rest = text.partition("\n")
    if heading.strip().lower().startswith("sep="):  # Excel's own first line
        separator, text, before = heading.strip("\r\n ")[4:] or ",", rest, 1
        if len(separator) != 1:
            raise WrongHeading(f"its first line {heading.strip()!r:.40} names no separator of one character")
    else:
        separator = max(COLUMN_SEPARATORS, key=lambda mark: _known_columns(heading, mark))
    lines = io.StringIO(text, newline="")
    reader = csv.DictReader(lines, delimiter=separator, strict=True, skipinitialspace=True)
    _check_heading(reader.fieldnames or ())
    for row in reader:
        if not any(row.values()):
            continue
        if None in row:
            yield Unreadable(f"line {reader.line_num + before} has more cells than the heading")
            continue
        cells: dict[str, object] = {name: text for name, text in row.items() if _is_given(name, text)}
        lists = {name: _parts(cell) for name in LISTS if isinstance(cell := cells.get(name), str)}
        if "images" not in lists and "prompts" in lists:  # a prompt without an image is never empty
            lists["prompts"] = [text for text in lists["prompts"] if text]
        cells |= lists
        yield cells


def _parts(cell: str) -> list[str]:
    return [text.strip() for text in cell.split(SEPARATOR.strip())]


def _known_columns(heading: str, separator: str) -> int:
    """How many columns of a catalog a heading has if it is parted by `separator`."""
    return len({name.strip('" \r').lower() for name in heading.split(separator)} & {*REQUIRED, *OPTIONAL})


def _is_given(name: str, text: str | None) -> bool:
    """Whether a cell of a CSV file holds something; those of other columns count, so that they can be named."""
    if name not in REQUIRED + OPTIONAL:
        return True
    return bool(text) and not (name in NUMBERS and str(text).strip().lower() == "nan")


def _check_heading(names: Sequence[str]) -> None:
    """WrongHeading where a table lacks columns, or has one twice or miswritten: one fault, not one in each row."""
    missing = [name for name in REQUIRED if name not in names]
    twice = [name for name in REQUIRED + OPTIONAL if names.count(name) > 1]
    wrong = [name for name in names if miswritten(name)]
    if not missing and not twice and not wrong:
        return
    faults = [f"lacks {', '.join(missing)}"] if missing else []
    faults += [f"has {', '.join(twice)} more than once"] if twice else []
    others = wrong if wrong or not missing else [name for name in names if name not in REQUIRED + OPTIONAL]
    shown = [printable(name[:60]) or "(a column without a name)" for name in others[:NAMES_SHOWN]]
    faults += [f"has {', '.join(shown)}"] if shown else []
    raise WrongHeading(
        f"the heading {' and '.join(faults)}; expected {', '.join(REQUIRED)} and, where you need them, "
        f"{', '.join(OPTIONAL)}, in small letters, parted by commas, semicolons or tabs"
    )


def _read_jsonl(path: Path) -> Iterator[object]:
    for number, line in enumerate(io.StringIO(_read_text(path)), 1):
        if line.strip():
            try:
                yield parse_json(line)
            except ValueError as error:
                yield Unreadable(f"line {number} {error}")


def _read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark, as Excel's "Unicode Text" has it."""
    content = read_bytes(path, MOST_BYTES)
    encoding = "UTF-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "UTF-8"
    try:
        return content.decode("utf-16" if encoding == "UTF-16" else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not {encoding} text (byte {error.start}); save it as UTF-8") from error


def _read_parquet(path: Path) -> Iterator[object]:
    import pyarrow as pa  # slow to import

    try:
        yield from _rows_of_parquet(path)
    except pa.ArrowException as error:  # not all of them are ValueErrors
        raise ValueError(str(error)) from error


def _rows_of_parquet(path: Path) -> Iterator[object]:
    import pyarrow as pa
    from pyarrow import parquet

    with open_regular(path) as file:  # the bounds first, by the metadata at its end
        facts = parquet.ParquetFile(file).metadata
    if facts.num_rows > MOST_ROWS or unpacked_bytes(facts) > MOST_BYTES:
        raise ValueError(f"has {facts.num_rows} rows, or more than {MOST_BYTES // 2**20} MiB; divide it")
    # From memory and in this thread: one of Arrow's own that is still reading when Python ends aborts the process.
    table = parquet.ParquetFile(pa.BufferReader(read_bytes(path, MOST_BYTES)), pre_buffer=False)
    _check_heading(table.schema_arrow.names)
    for batch in table.iter_batches(batch_size=_BATCH, use_threads=False):
        for index in range(batch.num_rows):
            yield {name: _cell(column[index]) for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _cell(scalar: object) -> object:
    """The value of a cell of a Parquet file in Python's own types."""
    try:
        return scalar.as_py()  # type: ignore[attr-defined]  # pyarrow has no types
    except (ValueError, OverflowError, RecursionError) as error:
        return Unreadable(f"has a value that cannot be read ({' '.join(str(error).split())[:80]})")


READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
