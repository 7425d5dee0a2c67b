"""Catalogs: tables of clips, in CSV, JSONL or Parquet, checked whole before any work begins.

A catalog is untrusted input: a row that is wrong in any way is a fault with its row and column, never another error.

Columns: `clip` (id), `video` (path relative to the catalog file), `prompts` (a list; in CSV one cell, separated by
`|`); optional `caption`, `class`, `start`, `end` (seconds), `appearance_images` (folder), `seed`, `motion_of` (all,
camera or object), `region` (x,y,width,height on the first frame), `images` (a list as `prompts`, the image that the
video of each prompt begins with; a prompt may then be empty). Other columns are ignored, and named. Paths must stay
inside the folder of the catalog file.
"""

import csv
import hashlib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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

from effivmt.catalog_files import (
    MOST_ROWS,
    OPTIONAL,
    READERS,
    REQUIRED,
    Unreadable,
    WrongHeading,
    miswritten,
    read_rows,
)
from effivmt.config import Section
from effivmt.errors import CatalogError, ParamsError, printable

MOST_CHARACTERS = 2000
"""A caption or prompt has at most this many."""
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MOST_CHARACTERS)]
Prompt = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MOST_CHARACTERS)]
Caption = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MOST_CHARACTERS)]
MotionOf = Literal["all", "camera", "object"]
"""Whose motion is taken: that of all there is, of the camera alone, or of what moves against the ground."""
Box = tuple[float, float, float, float]
"""A rectangle: x and y of its top left corner, width and height."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
FAULTS_SHOWN = 20
"""An error lists at most this many faults, and counts the others."""


def clip_id(name: str) -> str:
    """The id of a clip that is named by its file: what an id may have of it, and a digest where letters are lost."""
    kept = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:80]
    return kept if name.isascii() and kept else "-".join(filter(None, (kept, id_digest(name))))


def id_digest(text: str) -> str:
    """Eight hex digits that tell apart what else would have the same id."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


class Clip(Section):
    """One row of a catalog."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    clip: Annotated[str, StringConstraints(pattern=f"^{_ID.pattern}$")]
    """The clip's id: letters, digits, `-` and `_`."""
    video: Path
    caption: Caption = ""
    """What the video shows; without it tuning conditions on no text, as in classifier-free guidance."""
    images: tuple[Path, ...] = ()
    """The image that the video of each prompt begins with; empty: the videos begin with none."""
    prompts: Annotated[tuple[Prompt, ...], Field(validate_default=True)] = ()
    """What to render; a prompt may be empty where an image is given."""
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
    def _some_prompt(cls, prompts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        images = info.data.get("images", ())
        if not prompts and not images:
            raise ValueError("a clip needs at least one prompt")
        if not images:
            if "" in prompts:
                raise ValueError("a prompt is empty; say what to render, or give an image for each prompt")
            return tuple(dict.fromkeys(prompts))
        if prompts and len(prompts) != len(images):
            raise ValueError(f"expected one image for each prompt, not {len(images)} for {len(prompts)}")
        return prompts or ("",) * len(images)

    @field_validator("region", mode="before")
    @classmethod
    def _region_of_four(cls, region: object) -> object:
        parts = region.replace(",", " ").split() if isinstance(region, str) else region
        if isinstance(parts, list | tuple) and len(parts) != 4:
            raise ValueError(f"expected the four numbers x,y,width,height, not {len(parts)}")
        return parts

    @field_validator("region")
    @classmethod
    def _region_of_some_size(cls, region: Box | None, info: ValidationInfo) -> Box | None:
        if region is not None and (min(region) < 0 or min(region[2:]) <= 0):
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
        if not self.images:
            row.pop("images", None)
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
    """A catalog file: its clips in the order of its rows, and the faults of the rows that are none.

    rows: the number of each clip's row, from 1; ignored: the columns that are none of a catalog's.
    """

    path: Path
    clips: tuple[Clip, ...]
    faults: tuple[RowFault, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name, as logs show it."""
        return printable(self.path.name)

    def only(self, names: tuple[str, ...]) -> "Catalog":
        """The clips of these ids, without the faults; all of it for no ids. CatalogError for an unknown id."""
        known = {clip.clip for clip in self.clips}
        if unknown := [name for name in names if name not in known]:
            raise CatalogError(f"--only {unknown[0]}: catalog {self.path} has no such clip")
        chosen = tuple(clip for clip in self.clips if clip.clip in names)
        return replace(self, clips=chosen, faults=()) if names else self

    def without(self, faults: Mapping[str, tuple[str, str]]) -> "Catalog":
        """The catalog where clips have a fault, (column, text) by id; CatalogError where no clip is left."""
        if not faults:
            return self
        found = [RowFault(name, self.rows.get(name, 0), column, text) for name, (column, text) in faults.items()]
        left = tuple(clip for clip in self.clips if clip.clip not in faults)
        catalog = replace(self, clips=left, faults=(*self.faults, *found))
        if not left:
            raise CatalogError(list_faults(catalog))
        return catalog


def check_text(text: str) -> None:
    """ParamsError for a caption or prompt that no clip may have: too long, or with characters that are no Unicode."""
    fault = f"has {len(text)} characters, expected at most {MOST_CHARACTERS}; shorten it"
    if len(text) <= MOST_CHARACTERS:
        try:
            text.encode()
            return
        except UnicodeEncodeError as error:
            fault = f"has a character that is no Unicode at place {error.start}; write it as UTF-8"
    raise ParamsError(f"the text {text!r:.60} {fault}")


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
    if path.suffix.lower() not in READERS:
        raise CatalogError(f"catalog {path} is no .csv, .jsonl or .parquet file; give one of these")
    clips: list[Clip] = []
    faults: list[RowFault] = []
    seen: dict[str, int] = {}
    ignored: dict[str, None] = {}
    number = 0
    try:
        root = Path(os.path.realpath(path)).parent
        for number, row in enumerate(read_rows(path), 1):
            if number > MOST_ROWS:
                raise ValueError(f"has more than {MOST_ROWS} rows; divide it")
            if isinstance(row, dict):
                others = [name for name in row if name not in REQUIRED + OPTIONAL and not miswritten(name)]
                ignored |= dict.fromkeys(printable(str(name)[:60]) or "(a column without a name)" for name in others)
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
    except WrongHeading as error:
        raise CatalogError(f"catalog {path}: {error}") from error
    except (ValueError, csv.Error) as error:  # not UTF-8, not Parquet, too large
        raise CatalogError(f"catalog {path} is damaged: {' '.join(str(error).split())[:300]}") from error
    if number == 0:
        raise CatalogError(f"catalog {path} has no clips; add at least one row")
    rows = {clip.clip: seen[clip.clip] for clip in clips}
    catalog = Catalog(path, tuple(clips), tuple(faults), rows, tuple(ignored))
    if not clips:
        raise CatalogError(list_faults(catalog))
    return catalog


def list_ignored(catalog: Catalog) -> str:
    """The columns of a catalog that are ignored, as one line; empty where there are none."""
    if not catalog.ignored:
        return ""
    names = ", ".join(catalog.ignored[:FAULTS_SHOWN])
    more = f" and {len(catalog.ignored) - FAULTS_SHOWN} more" if len(catalog.ignored) > FAULTS_SHOWN else ""
    return f"catalog {catalog.name}: ignored, as they are no columns of a catalog: {names}{more}"


def list_faults(catalog: Catalog) -> str:
    """The faults of a catalog's rows as text: how many there are, and the first `FAULTS_SHOWN` of them, one a line."""
    count = len(catalog.faults)
    lines = [str(fault) for fault in catalog.faults[:FAULTS_SHOWN]]
    lines += [f"and {count - FAULTS_SHOWN} more"] if count > FAULTS_SHOWN else []
    return "\n  ".join([f"catalog {printable(str(catalog.path))} has {count} fault{'s' * (count > 1)}:", *lines])


def _check(row: object, root: Path) -> tuple[list[tuple[str, str]], Clip | None]:
    """Faults (column, text) of one row, and its clip if it has none."""
    if isinstance(row, Unreadable):
        return [("all", row.reason)], None
    if not isinstance(row, dict):
        return [("all", f"is {row!r:.60}; expected an object with {', '.join(REQUIRED)}")], None
    present = {name: value for name, value in row.items() if not _is_empty(value)}
    needed = [name for name in REQUIRED if name != "prompts" or "images" not in present]
    faults = [(name, "is missing") for name in needed if name not in present]
    faults += [(printable(str(name)[:60]), f"is to be written {miswritten(name)}") for name in row if miswritten(name)]
    faults = faults[:FAULTS_SHOWN]  # a row can have thousands of columns
    for name, value in list(present.items()):
        if isinstance(value, Unreadable) and name in REQUIRED + OPTIONAL:
            faults.append((name, present.pop(name).reason))
    for name in ("video", "appearance_images"):
        if isinstance(given := present.get(name), str):
            present[name], fault = _place(root, given)
            faults += [(name, fault)] if fault else []
    if isinstance(given := present.get("images"), list) and all(isinstance(image, str) for image in given):
        places = [_place(root, image) for image in given]
        present["images"] = [place for place, _ in places]
        faults += [("images", fault) for _, fault in places if fault][:FAULTS_SHOWN]
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


def _is_empty(value: object) -> bool:
    """Whether a cell counts as not given: null, or NaN, which pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


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
