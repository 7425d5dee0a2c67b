"""A moving picture of what transfers made: the reference of each clip, and its results beside it."""

import json
from collections.abc import Sequence
from pathlib import Path

from effivmt.errors import EffiVMTError
from effivmt.media.animation import side_by_side, write_animation
from effivmt.media.video import read_frames
from effivmt.store.disk_errors import write_errors
from effivmt.store.files import atomic_write


def write_moving_picture(folders: Sequence[Path], out: Path, *, every: int = 1) -> None:
    """Writes a .gif or .webp with a row for each out folder of a clip; of the videos every `every`-th frame.

    EffiVMTError for a folder without the results of a clip, ParamsError for another suffix.
    """
    rows, rates = [], []
    for folder in folders:
        results = [(f"“{prompt}”", read_frames(folder / video)[0]) for prompt, video in _results(folder)]
        reference, fps = read_frames(folder / "reference.mp4")
        rates.append(fps)
        rows.append([("reference", reference), *results])
    frames = side_by_side(rows, every=every)
    with write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(out) as temporary:
            write_animation(temporary, frames, max(rates) / every)


def _results(folder: Path) -> list[tuple[str, str]]:
    """Prompt and file name of each video in the out folder of a clip."""
    try:
        document = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return [(str(result["prompt"]), Path(result["video"]).name) for result in document["results"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EffiVMTError(f"{folder} is not the out folder of a clip ({error!r:.100}): run transfer first") from error
