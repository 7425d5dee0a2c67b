"""CSV tables that any spreadsheet may open: a cell of text stays text, whatever a stranger has named a file or clip."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from effivmt.store.files import atomic_write

MARK = "'"
"""Spreadsheets take what follows it for text."""
_FORMULA = re.compile(r"(^|[;\t])(?=[=+\-@\t\uff1d\uff0b\uff0d\uff20])")
"""Where a formula could begin: in a cell, and after what separates cells where commas are decimal points."""


def write_csv(path: Path, heading: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table, whole or not at all; texts that a spreadsheet would take for a formula get a `MARK`."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(heading)
        table.writerows([_harmless(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table of `write_csv` by heading; OSError or ValueError where it cannot be read."""
    with path.open(encoding="utf-8", newline="") as file:
        try:
            heading, *rows = csv.reader(file, strict=True)
            return [{name: text.removeprefix(MARK) for name, text in zip(heading, row, strict=True)} for row in rows]
        except csv.Error as error:
            raise ValueError(str(error)) from error


def _harmless(text: str) -> str:
    return _FORMULA.sub(rf"\1{MARK}", text.replace("\r", " "))  # which Python leaves unquoted
