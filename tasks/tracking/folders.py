"""The out folders that MLflow records, and `tracked.json` in each: the run and the model version that hold it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effivmt.pipeline.outcomes import RUN
from effivmt.pipeline.outputs import RECORD, Outputs
from effivmt.store.files import atomic_write


@dataclass(frozen=True)
class TrackedRun:
    """The MLflow run that holds a folder: tracking URI, run id, and the digest of the content that was recorded.

    made_of: of a clip's folder, that of its transfer.json; of a catalog's, the digest of its run.json; empty while the
    run is not complete. model, version: of a clip's adapter in the registry.
    """

    uri: str
    run_id: str
    made_of: str = ""
    model: str = ""
    version: str = ""


def read_tracked(folder: Path) -> TrackedRun | None:
    """The content of tracked.json; None where there is none, or one of another format."""
    try:
        return TrackedRun(**json.loads(Outputs(folder, ()).tracked.read_text(encoding="utf-8")))
    except (FileNotFoundError, IsADirectoryError, ValueError, TypeError):
        return None


def write_tracked(folder: Path, tracked: TrackedRun) -> None:
    """Writes tracked.json, whole or not at all."""
    with atomic_write(Outputs(folder, ()).tracked) as temporary:
        temporary.write_text(json.dumps(asdict(tracked), indent=1) + "\n", encoding="utf-8")


def is_pending(folder: Path, uri: str) -> bool:
    """Whether a clip's folder holds results that the run at this (public) URI does not."""
    record, tracked = read_record(folder / RECORD), read_tracked(folder)
    return "made_of" in record and (tracked is None or (tracked.uri, tracked.made_of) != (uri, record["made_of"]))


def read_record(path: Path) -> dict[str, Any]:
    """The content of a clip's transfer.json or a catalog's run.json; empty where there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def clip_folders(out: Path) -> list[Path]:
    """The clips' folders at or below `out`, in order."""
    return [path.parent for path in sorted(out.rglob(RECORD)) if "made_of" in read_record(path)]


def catalog_folders(out: Path) -> list[Path]:
    """The folders of catalog runs at or below `out`, in order."""
    return [path.parent for path in sorted(out.rglob(RUN)) if "clips" in read_record(path)]
