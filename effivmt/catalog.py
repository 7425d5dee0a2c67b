"""Catalogs: tables of clips, in CSV, JSONL or Parquet, checked whole before any work begins.

A catalog is untrusted input: a row that is wrong in any way is a fault with its row and column, never another error.

Columns: `clip` (id), `video` (path relative to the catalog file), `caption`, `prompts` (a list; in CSV one cell,
separated by `|`); optional `class`, `start`, `end` (seconds), `appearance_images` (folder), `seed`, `motion_of` (all,
camera or object), `region` (x,y,width,height on the first frame). Paths must stay inside the folder of the catalog
file.
"""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from effivmt.config import Section
from effivmt.errors import CatalogError, printable
from effivmt.untrusted import open_regular, parse_json, read_text, unpacked_bytes

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
MotionOf = Literal["all", "camera", "object"]
"""Whose motion is taken: that of all there is, of the camera alone, or of what moves against the ground."""
Box = tuple[float, float, float, float]
"""A rectangle: x and y of its top left corner, width and height."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
REQUIRED = ("clip", "video", "caption", "prompts")
OPTIONAL = ("class", "start", "end", "appearance_images", "seed", "motion_of", "region")
SEPARATOR = " | "
"""As a cell of prompts is written; the blanks may be left out."""
MOST_BYTES = 64 * 2**20
"""A catalog file has at most this size, a Parquet file also when it is unpacked."""
MOST_ROWS = 200_000
FAULTS_SHOWN = 20
"""An error lists at most this many faults, and counts the others."""


class Clip(Section):
    """One row of a catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    clip: Annotated[str, StringConstraints(pattern=f"^{_ID.pattern}$")]
    """The clip's id: letters, digits, `-` and `_`."""
    video: Path
    caption: Text
    prompts: tuple[Text, ...]
    group: Annotated[Text | None, Field(alias="class")] = None
    """The catalog's column `class`: what kind of motion it is; only shown."""
    start: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0
    end: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    """Trim, in seconds of the file."""
    appearance_images: Path | None = None
    """Folder of images that the spatial stage learns from, instead of the clip's own frames."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Seed of classification and tuning; None takes the params' own."""
    motion_of: MotionOf = "all"
    region: Box | None = None
    """Where on the first frame is what moves as wanted: in shares of the video as shown, if none of the four is above
    1, else in its pixels. In a file, `x,y,width,height`, also as a list of numbers."""

    @field_validator("prompts")
    @classmethod
    def _some_prompt(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if not prompts:
            raise ValueError("a clip needs at least one prompt")
        return tuple(dict.fromkeys(prompts))

    @field_validator("region", mode="before")
    @classmethod
    def _region_in_words(cls, region: object) -> object:
        return region.replace(",", " ").split() if isinstance(region, str) else region

    @field_validator("region")
    @classmethod
    def _region_of_some_size(cls, region: Box | None, info: ValidationInfo) -> Box | None:
        if region is not None and not (all(map(isfinite, region)) and min(region) >= 0 and min(region[2:]) > 0):
            raise ValueError("expected x,y,width,height, none below 0, with a width and a height above 0")
        if region is not None and info.data.get("motion_of") == "camera":
            raise ValueError("the camera's motion has no region; leave out one of the two")
        return region

    @model_serializer(mode="wrap")
    def _without_the_default(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Without the choice of a motion where there is none: what was made before there was one stays the same."""
        row = serialize(self)
        if not self.chosen:
            row.pop("motion_of", None)
            row.pop("region", None)
        return row

    @property
    def chosen(self) -> bool:
        """Whether only a part of the clip's motion is wanted."""
        return self.motion_of != "all" or self.region is not None

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> "Clip":
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        return self


@dataclass(frozen=True)
class RowFault:
    """What is wrong with one row, counted from 1 without the heading; `column` is "all" where none can be told.

    clip: the row's id, or "row N" where that is none or another row's.
    """

    clip: str
    row: int
    column: str
    text: str

    def __str__(self) -> str:
        return f"row {self.row}, column {self.column}: {self.text}"


@dataclass(frozen=True)
class Catalog:
    """A catalog file: its clips in the order of its rows, and the faults of the rows that are none."""

    path: Path
    clips: tuple[Clip, ...]
    faults: tuple[RowFault, ...] = ()

    @property
    def name(self) -> str:
        """The file's name, as logs show it."""
        return printable(self.path.name)

    def only(self, names: tuple[str, ...]) -> "Catalog":
        """The clips of these ids, without the faults; all of it for no ids. CatalogError for an unknown id."""
        known = {clip.clip for clip in self.clips}
        if unknown := [name for name in names if name not in known]:
            raise CatalogError(f"--only {unknown[0]}: catalog {self.path} has no such clip")
        return Catalog(self.path, tuple(clip for clip in self.clips if clip.clip in names)) if names else self


def load_catalog(path: Path | str) -> Catalog:
    """Reads and checks a whole catalog; a CatalogError lists the faults of its rows, with row and column.

    Videos are resolved, not opened: a file that is missing or damaged fails its own clip when that runs.
    """
    catalog = read_catalog(path)
    if catalog.faults:
        raise CatalogError(list_faults(catalog))
    return catalog


def read_catalog(path: Path | str) -> Catalog:
    """Reads and checks a catalog as `load_catalog` does, but keeps the faults beside the clips of the good rows.

    CatalogError where the file cannot be read, and where no row is good.
    """
    path = Path(path)
    if path.suffix.lower() not in _READERS:
        raise CatalogError(f"catalog {path} is no .csv, .jsonl or .parquet file; give one of these")
    clips: list[Clip] = []
    faults: list[RowFault] = []
    seen: dict[str, int] = {}
    number = 0
    try:
        root = Path(os.path.realpath(path)).parent
        for number, row in enumerate(_READERS[path.suffix.lower()](path), 1):
            if number > MOST_ROWS:
                raise ValueError(f"has more than {MOST_ROWS} rows; divide it")
            found, clip = _check(row, root)
            name = row.get("clip") if isinstance(row, dict) else None
            if isinstance(name, str) and name in seen:
                found.append(("clip", f"{name[:60]!r} is also the id of row {seen[name]}; ids must differ"))
            elif isinstance(name, str):
                seen[name] = number
            is_id = isinstance(name, str) and seen[name] == number and _ID.fullmatch(name)
            label = str(name) if is_id else f"row {number}"
            faults += [RowFault(label, number, column, text) for column, text in found]
            if clip is not None and not found:
                clips.append(clip)
    except OSError as error:
        raise CatalogError(f"catalog {path} cannot be read ({error.strerror or error})") from error
    except _WrongHeading as error:
        raise CatalogError(f"catalog {path}: {error}") from error
    except (ValueError, csv.Error) as error:  # not UTF-8, not Parquet (pyarrow's errors are ValueErrors), too large
        raise CatalogError(f"catalog {path} is damaged: {' '.join(str(error).split())[:300]}") from error
    if number == 0:
        raise CatalogError(f"catalog {path} has no clips; add at least one row")
    catalog = Catalog(path, tuple(clips), tuple(faults))
    if not clips:
        raise CatalogError(list_faults(catalog))
    return catalog


def list_faults(catalog: Catalog) -> str:
    """The faults of a catalog's rows as text: how many there are, and the first `FAULTS_SHOWN` of them, one a line."""
    count = len(catalog.faults)
    lines = [str(fault) for fault in catalog.faults[:FAULTS_SHOWN]]
    lines += [f"and {count - FAULTS_SHOWN} more"] if count > FAULTS_SHOWN else []
    return "\n  ".join([f"catalog {printable(str(catalog.path))} has {count} fault{'s' * (count > 1)}:", *lines])


class _WrongHeading(ValueError):
    """The columns of a table are not those of a catalog."""


@dataclass(frozen=True)
class _Unreadable:
    """A row or cell that its file holds but that cannot be read, and why."""

    reason: str


def _check(row: object, root: Path) -> tuple[list[tuple[str, str]], Clip | None]:
    """Faults (column, text) of one row, and its clip if it has none."""
    if isinstance(row, _Unreadable):
        return [("all", row.reason)], None
    if not isinstance(row, dict):
        return [("all", f"is {row!r:.60}; expected an object with {', '.join(REQUIRED)}")], None
    present = {name: value for name, value in row.items() if value is not None}
    faults = [(name, "is missing") for name in REQUIRED if name not in present]
    faults += [
        (printable(str(name)[:60]), "is no column of a catalog") for name in row if name not in REQUIRED + OPTIONAL
    ]
    faults = faults[:FAULTS_SHOWN]  # a row can have thousands of columns
    for name, value in list(present.items()):
        if isinstance(value, _Unreadable):
            faults.append((name, present.pop(name).reason))
    for name in ("video", "appearance_images"):
        if isinstance(given := present.get(name), str):
            present[name], fault = _place(root, given)
            faults += [(name, fault)] if fault else []
    try:
        clip = Clip(**{name: value for name, value in present.items() if name in REQUIRED + OPTIONAL})
    except ValidationError as error:
        told = {column for column, _ in faults}
        for found in error.errors()[:FAULTS_SHOWN]:
            column = str(found["loc"][0]) if found["loc"] else "end"
            if found["type"] != "missing" and column not in told:
                given = "" if isinstance(found["input"], dict) else f"{found['input']!r:.60}: "
                faults.append((column, given + found["msg"].removeprefix("Value error, ")))
        return faults, None
    return faults, None if faults else clip


def _place(root: Path, given: str) -> tuple[Path, str]:
    """Where a path in a catalog leads, and what is wrong with it ("": nothing); whether anything is there is not."""
    try:
        place = (root / given).resolve()
        os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: what resolve raises for a link to itself
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error).partition(":")[0]
        return root, f"{given[:60]!r} cannot be the path of a file ({reason}); correct it"
    if not place.is_relative_to(root):
        return root, f"{given[:80]!r} leaves the catalog's folder; keep its files beside it"
    return place, ""


def _read_csv(path: Path) -> Iterator[object]:
    """Empty cells count as not given, and rows of empty cells, which spreadsheets leave at the end, as no rows."""
    reader = csv.DictReader(io.StringIO(read_text(path, MOST_BYTES, "utf-8-sig"), newline=""), strict=True)
    _check_heading(reader.fieldnames or ())
    for row in reader:
        if not any(row.values()):
            continue
        if None in row:
            yield _Unreadable(f"line {reader.line_num} has more cells than the heading")
            continue
        cells: dict[str, object] = {name: text for name, text in row.items() if text}
        if isinstance(prompts := cells.get("prompts"), str):
            cells["prompts"] = [text for text in map(str.strip, prompts.split(SEPARATOR.strip())) if text]
        yield cells


def _check_heading(names: Sequence[str]) -> None:
    """_WrongHeading where the columns of a table are not those of a catalog: one fault, not one in each row."""
    missing = [name for name in REQUIRED if name not in names]
    unknown = [printable(name[:60]) or "(a column without a name)" for name in names if name not in REQUIRED + OPTIONAL]
    if not missing and not unknown:
        return
    faults = [f"lacks {', '.join(missing)}"] if missing else []
    faults += [f"has {', '.join(unknown[:FAULTS_SHOWN])}"] if unknown else []
    comma = "; separate the columns by commas" if any(";" in name or "\t" in name for name in names) else ""
    raise _WrongHeading(
        f"the heading {' and '.join(faults)}; expected {', '.join(REQUIRED)} and, where you need them, "
        f"{', '.join(OPTIONAL)}, in small letters{comma}"
    )


def _read_jsonl(path: Path) -> Iterator[object]:
    for number, line in enumerate(io.StringIO(read_text(path, MOST_BYTES, "utf-8-sig")), 1):
        if line.strip():
            try:
                yield parse_json(line)
            except ValueError as error:
                yield _Unreadable(f"line {number} {error}")


def _read_parquet(path: Path) -> Iterator[object]:
    from pyarrow import parquet  # slow to import

    with open_regular(path) as file:
        table = parquet.ParquetFile(file)
        facts = table.metadata
        if facts.num_rows > MOST_ROWS or unpacked_bytes(facts) > MOST_BYTES:
            raise ValueError(f"has {facts.num_rows} rows, or more than {MOST_BYTES // 2**20} MiB; divide it")
        _check_heading(table.schema_arrow.names)
        for batch in table.iter_batches(batch_size=_BATCH):
            for index in range(batch.num_rows):
                yield {
                    name: _cell(column[index]) for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }


_BATCH = 8
"""Rows that are unpacked at once: a short file can have a text of megabytes in every row."""


def _cell(scalar: object) -> object:
    """The value of a cell of a Parquet file in Python's own types."""
    try:
        return scalar.as_py()  # type: ignore[attr-defined]  # pyarrow has no types
    except (ValueError, OverflowError, RecursionError) as error:
        return _Unreadable(f"has a value that cannot be read ({' '.join(str(error).split())[:80]})")


_READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
