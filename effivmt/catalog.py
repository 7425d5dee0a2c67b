"""Catalogs: tables of clips, in CSV, JSONL or Parquet, checked whole before any work begins.

Columns: `clip` (id), `video` (path relative to the catalog file), `caption`, `prompts` (a list; in CSV one cell,
separated by ` | `); optional `class`, `start`, `end` (seconds), `appearance_images` (folder), `seed`. Paths must stay
inside the folder of the catalog file.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from effivmt.config import Section
from effivmt.errors import CatalogError

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
REQUIRED = ("clip", "video", "caption", "prompts")
OPTIONAL = ("class", "start", "end", "appearance_images", "seed")
SEPARATOR = " | "


class Clip(Section):
    """One row of a catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    clip: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")]
    """The clip's id: letters, digits, `-` and `_`."""
    video: Path
    caption: Text
    prompts: tuple[Text, ...]
    group: Annotated[Text | None, Field(alias="class")] = None
    """The catalog's column `class`: what kind of motion it is; only shown."""
    start: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    end: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Trim, in seconds of the file."""
    appearance_images: Path | None = None
    """Folder of images that the spatial stage learns from, instead of the clip's own frames."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of classification and tuning; None takes the params' own."""

    @field_validator("prompts")
    @classmethod
    def _some_prompt(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        if not prompts:
            raise ValueError("a clip needs at least one prompt")
        return tuple(dict.fromkeys(prompts))

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> "Clip":
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        return self


@dataclass(frozen=True)
class Catalog:
    """A catalog file and its clips, in the order of its rows."""

    path: Path
    clips: tuple[Clip, ...]

    def only(self, names: tuple[str, ...]) -> "Catalog":
        """The clips of these ids; CatalogError for an id that is not there."""
        known = {clip.clip for clip in self.clips}
        if unknown := [name for name in names if name not in known]:
            raise CatalogError(f"--only {unknown[0]}: catalog {self.path} has no such clip")
        return Catalog(self.path, tuple(clip for clip in self.clips if clip.clip in names)) if names else self


def load_catalog(path: Path | str) -> Catalog:
    """Reads and checks a whole catalog; one CatalogError lists every fault with its row and column.

    Rows are counted from 1, without the heading. Videos are resolved, not opened: a file that is missing or damaged
    fails its own clip when that runs.
    """
    path = Path(path)
    if path.suffix.lower() not in _READERS:
        raise CatalogError(f"catalog {path} is no .csv, .jsonl or .parquet file; give one of these")
    try:
        rows = list(_READERS[path.suffix.lower()](path))
    except OSError as error:
        raise CatalogError(f"catalog {path} cannot be read ({error.strerror or error})") from error
    except (ValueError, csv.Error) as error:  # not UTF-8, not JSON, not Parquet (pyarrow's errors are ValueErrors)
        raise CatalogError(f"catalog {path} is damaged: {' '.join(str(error).split())}") from error
    if not rows:
        raise CatalogError(f"catalog {path} has no clips; add at least one row")
    root = path.resolve().parent
    clips: list[Clip] = []
    faults: list[str] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        found, clip = _check(row, root)
        name = row.get("clip") if isinstance(row, dict) else None
        if isinstance(name, str) and name in seen:
            found.append(("clip", f"{name!r} is also the id of row {seen[name]}; ids must differ"))
        elif isinstance(name, str):
            seen[name] = number
        faults += [f"row {number}, column {column}: {text}" for column, text in found]
        if clip is not None:
            clips.append(clip)
    if faults:
        listed = "\n  ".join(faults)
        raise CatalogError(f"catalog {path} has {len(faults)} fault{'s' * (len(faults) > 1)}:\n  {listed}")
    return Catalog(path, tuple(clips))


def _check(row: object, root: Path) -> tuple[list[tuple[str, str]], Clip | None]:
    """Faults (column, text) of one row, and its clip if it has none."""
    if not isinstance(row, dict):
        return [("all", f"is {row!r:.60}; expected an object with {', '.join(REQUIRED)}")], None
    present = {name: value for name, value in row.items() if value is not None}
    faults = [(name, "is missing") for name in REQUIRED if name not in present]
    faults += [(str(name), "is no column of a catalog") for name in row if name not in REQUIRED + OPTIONAL]
    for name in ("video", "appearance_images"):
        if isinstance(given := present.get(name), str):
            place = (root / given).resolve()
            present[name] = place
            if not place.is_relative_to(root):
                faults.append((name, f"{given!r:.80} leaves the catalog's folder; keep its files beside it"))
    try:
        clip = Clip(**{name: value for name, value in present.items() if name in REQUIRED + OPTIONAL})
    except ValidationError as error:
        for fault in error.errors():
            column = str(fault["loc"][0]) if fault["loc"] else "end"
            if fault["type"] != "missing":
                given = "" if isinstance(fault["input"], dict) else f"{fault['input']!r:.60}: "
                faults.append((column, given + fault["msg"].removeprefix("Value error, ")))
        return faults, None
    return faults, None if faults else clip


def _read_csv(path: Path) -> Iterator[dict[str, object]]:
    """Empty cells count as not given."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        for row in reader:
            if None in row:
                raise ValueError(f"line {reader.line_num} has more cells than the heading")
            cells: dict[str, object] = {name: text for name, text in row.items() if text}
            if isinstance(prompts := cells.get("prompts"), str):
                cells["prompts"] = [text for text in map(str.strip, prompts.split(SEPARATOR)) if text]
            yield cells


def _read_jsonl(path: Path) -> Iterator[object]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error


def _read_parquet(path: Path) -> Iterator[dict[str, object]]:
    from pyarrow import parquet  # slow to import

    with path.open("rb") as file:
        yield from parquet.read_table(file).to_pylist()


_READERS = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
