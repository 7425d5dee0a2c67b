"""The small catalog's prompts and steps, and out folders changed as another run would have left them."""

import json
import shutil
from pathlib import Path

from effivmt.store.digests import sha256_file

PROMPTS = ("a green circle on a gray background", "a yellow star on a black background")
STEPS = {"spatial": 2, "temporal": 3}


def renamed(folder: Path, target: Path, clip: str) -> Path:
    """A copy of a clip's out folder under another clip's id, never recorded."""
    copy = Path(shutil.copytree(folder, target / clip))
    (copy / "tracked.json").unlink(missing_ok=True)
    change(copy / "transfer.json", lambda run: run["clip"].update(clip=clip) or run.update(made_of=clip))
    return copy


def remeasured(folder: Path, values: list[float] | None, metric: str = "foreground_motion_fidelity") -> None:
    """Gives the videos other values of a metric (None: none at all), as a run with other prompts would."""

    def measure(document: dict) -> None:
        for number, row in enumerate(document["results"]):
            row["adapter"].pop(metric, None)
            if values is not None:
                row["adapter"][metric] = values[number]

    change(folder / "metrics.json", measure)
    change(folder / "transfer.json", lambda run: run.update(made_of=f"{run['made_of']} measured {values}"))


def retuned(folder: Path, word: str) -> None:
    """Gives the adapter other bytes, and its adapter.json their digest, as another tuning would."""
    card = folder / "adapter" / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + word, encoding="utf-8")
    change(folder / "adapter/adapter.json", lambda facts: facts["files"].update({card.name: sha256_file(card)}))
    change(folder / "transfer.json", lambda run: run.update(made_of=f"{run['made_of']} tuned {word}"))


def change(path: Path, edit) -> None:
    """Edits a JSON file in place."""
    document = json.loads(path.read_text(encoding="utf-8"))
    edit(document)
    path.write_text(json.dumps(document), encoding="utf-8")
