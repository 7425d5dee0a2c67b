"""What the folder of a catalog run says of its clips; quick to read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from effivmt import __version__
from effivmt.errors import EffiVMTError
from effivmt.store.digests import canonical_json, sha256_bytes


@dataclass(frozen=True)
class ClipRecord:
    """A clip of a run: what was asked for, what became of it, and what its out folder says made it.

    status: `hit`, `done` or `failed` (at `stage`, for `reason`). made: the folder's transfer.json; None for a clip that
    failed, and where the folder has none.
    """

    clip: str
    status: str
    seconds: float
    stage: str
    reason: str
    group: str | None
    caption: str
    prompts: tuple[str, ...]
    made: Mapping[str, object] | None


@dataclass(frozen=True)
class RunRecord:
    """A catalog run: the file's name, when it ended (UTC), seconds, its counts by status, and its clips in order."""

    catalog: str
    ended: str
    seconds: float
    counts: Mapping[str, int]
    clips: tuple[ClipRecord, ...]

    @property
    def digest(self) -> str:
        """Digest of all that lasts: a run that finds every result in the store has that of the run before."""
        clips = []
        for it in self.clips:
            words = [it.clip, it.group, it.caption, it.prompts]
            clips.append([*words, it.status == "failed", it.stage, it.reason, it.made and it.made["made_of"]])
        return sha256_bytes(canonical_json([__version__, self.catalog, clips]))


def read_run(out: Path) -> RunRecord:
    """Reads run.json, catalog.parquet and the clips' transfer.json; EffiVMTError where `out` holds no run."""
    try:
        document = json.loads((out / "run.json").read_text(encoding="utf-8"))
        asked = _asked(out / "catalog.parquet")
        clips = tuple(_clip(out, row, asked.get(row["clip"], {})) for row in document["clips"])
        counts = {status: int(document[status]) for status in ("done", "hit", "failed")}
        return RunRecord(document["catalog"], document["ended"], float(document["seconds"]), counts, clips)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EffiVMTError(f"{out} holds no whole run ({error!r:.200}); run the catalog again") from error


def _asked(path: Path) -> dict[str, dict[str, object]]:
    """Rows of the normalised catalog by clip; none where it is absent."""
    from pyarrow import parquet  # slow to import

    if not path.is_file():
        return {}
    columns = ["clip", "caption", "prompts", "class"]
    return {row["clip"]: row for row in parquet.read_table(path, columns=columns).to_pylist()}


def _clip(out: Path, row: Mapping[str, object], asked: Mapping[str, object]) -> ClipRecord:
    """What made the results goes before what the catalog says: a clip that this run left out may have changed there."""
    made = _made(out / row["clip"] / "transfer.json") if row["status"] != "failed" else None
    shown = made["clip"] if made else asked
    return ClipRecord(
        clip=row["clip"],
        status=row["status"],
        seconds=float(row["seconds"]),
        stage=row["stage"],
        reason=row["reason"],
        group=shown.get("group") or shown.get("class"),
        caption=shown.get("caption") or "",
        prompts=tuple(shown.get("prompts") or ()),
        made=made,
    )


def _made(path: Path) -> dict[str, object] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(document, dict) and isinstance(document.get("clip"), dict) and "made_of" in document
    return document if whole else None
