"""motionbench-mini as files: videos, catalogs and the ground truth of every clip.

python -m effivmt.benchmark.files data/motionbench-mini
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from effivmt.benchmark.scene import DrawnClip, Scene
from effivmt.benchmark.suite import quick, suite
from effivmt.benchmark.tuning import tuning_scenes
from effivmt.catalog_files import SEPARATOR
from effivmt.media.video import write_video
from effivmt.world.motions import FPS

CATALOG, QUICK, TUNING = "catalog.csv", "quick.csv", "tuning.csv"
"""The whole suite, its quick subset, and the clips for choosing parameters, which are not of the suite."""


def write_suite(folder: Path) -> None:
    """Writes the catalogs, `videos/<clip>.mp4` and `truth/<clip>.safetensors` of every clip; the same bytes each time.

    The truth is of the drawn frames, before compression; `load_truth` reads it. Raises VideoError if a video cannot be
    written, OSError if another file cannot.
    """
    for name in ("videos", "truth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    scenes, tuning = suite(), tuning_scenes()
    for scene in (*scenes, *tuning):
        drawn = scene.draw()
        write_video(folder / _video(scene), drawn.frames, FPS)
        _save_truth(folder / "truth" / f"{scene.name}.safetensors", drawn)
    _write_catalog(folder / CATALOG, scenes)
    _write_catalog(folder / QUICK, quick(scenes))
    _write_catalog(folder / TUNING, tuning)


def load_truth(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tracks float32 (P, T, 2), visible bool (P, T) and mask bool (T, H, W) of a clip, as in `DrawnClip`.

    In the file, `mask` is (T, H, W / 8) bytes, the leftmost of 8 pixels in the highest bit. Raises OSError if it cannot
    be read.
    """
    tensors = load_file(path)
    return tensors["tracks"], tensors["visible"], np.unpackbits(tensors["mask"], axis=-1).astype(bool)


def _save_truth(path: Path, drawn: DrawnClip) -> None:
    tensors = {"tracks": drawn.tracks, "visible": drawn.visible, "mask": np.packbits(drawn.mask, axis=-1)}
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, path)


def _write_catalog(path: Path, scenes: Sequence[Scene]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("clip", "video", "caption", "prompts", "class"))
        for scene in scenes:
            table.writerow((scene.name, _video(scene), scene.caption, SEPARATOR.join(scene.prompts), scene.group))


def _video(scene: Scene) -> str:
    return f"videos/{scene.name}.mp4"


if __name__ == "__main__":
    write_suite(Path(sys.argv[1]))
