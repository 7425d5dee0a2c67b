"""Results in the folder of a catalog's runs whose rows have left the catalog."""

import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from effivmt.catalog import Catalog
from effivmt.pipeline.outcomes import RUN
from effivmt.pipeline.outputs import RECORD
from effivmt.store.disk_errors import write_errors
from effivmt.store.durable import remove


def removed_rows(catalog: Catalog, out: Path) -> list[str]:
    """Ids of clips that earlier runs of this catalog left results of in `out`, and that it no longer has; sorted.

    None where the catalog has faults, as the id of a faulty row may not be known, or where the last run there was of a
    catalog of another file name.
    """
    if catalog.faults:
        return []
    try:
        run = json.loads((out / RUN).read_text(encoding="utf-8"))
        if run["catalog"] != catalog.path.name:
            return []
        known = {row["clip"] for row in run["clips"]} | set(run.get("removed", ()))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return []
    gone = known - {clip.clip for clip in catalog.clips}
    return sorted(clip for clip in gone if Path(clip).name == clip and (out / clip / RECORD).is_file())


def delete_results(out: Path, clips: Sequence[str]) -> None:
    """Deletes the out folders of these clips, each moved away in one rename first; EffiVMTError where one cannot be."""
    for clip in clips:
        with write_errors(out / clip):
            away = out / f".{secrets.token_hex(8)}"
            (out / clip).rename(away)
            remove(away)
