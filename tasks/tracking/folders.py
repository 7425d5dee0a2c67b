"""Out folders as MLflow is to record them, and `tracked.json` in each, the note of where that was done."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from effivmt.pipeline.catalog_run import RUN
from effivmt.pipeline.outputs import Outputs
from effivmt.store.files import atomic_write


@dataclass(frozen=True)
class Note:
    """Where a folder was recorded; `made_of` is what of it, and empty while the MLflow run is not complete.

    made_of: of a clip's folder, run.json's own; of a catalog's, the digest of run.json. model, version: of a clip's
    adapter in the registry.
    """

    uri: str
    run_id: str
    made_of: str = ""
    model: str = ""
    version: str = ""


def read_note(folder: Path) -> Note | None:
    """The folder's note; None where there is none, or one of another making."""
    try:
        return Note(**json.loads(Outputs(folder, ()).tracked.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_note(folder: Path, note: Note) -> None:
    """Puts the note into the folder, whole or not at all."""
    with atomic_write(Outputs(folder, ()).tracked) as temporary:
        temporary.write_text(json.dumps(asdict(note), indent=1) + "\n", encoding="utf-8")


def is_pending(folder: Path, uri: str) -> bool:
    """Whether a clip's folder holds results that its note does not name at this (public) URI."""
    record, note = read_record(folder), read_note(folder)
    return "made_of" in record and (note is None or (note.uri, note.made_of) != (uri, record["made_of"]))


def read_record(folder: Path) -> dict[str, object]:
    """run.json of a clip's or a catalog's folder; empty where there is none."""
    try:
        record = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def folders_below(out: Path) -> Iterator[tuple[Path, bool]]:
    """Every folder at or below `out` that a run has left, in order, and whether it is a catalog's."""
    for path in sorted(out.rglob(RUN)):
        record = read_record(path.parent)
        if "made_of" in record or "clips" in record:
            yield path.parent, "clips" in record
