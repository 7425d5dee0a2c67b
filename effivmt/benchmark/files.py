"""motionbench-mini as files: videos, images, catalogs and the ground truth of every clip.

python -m effivmt.benchmark.files data/motionbench-mini
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from effivmt.benchmark.extra import extra_scenes
from effivmt.benchmark.scene import DrawnClip, Scene
from effivmt.benchmark.suite import quick, suite
from effivmt.benchmark.tuning import tuning_scenes
from effivmt.catalog_files import SEPARATOR
from effivmt.media.video import write_image, write_video
from effivmt.world.motions import FPS

CATALOG, QUICK, TUNING, EXTRA = "catalog.csv", "quick.csv", "tuning.csv", "extra.csv"
"""The whole suite, its quick subset, the clips for choosing parameters, which are not of the suite, and the suite of
image to video and of a part of the motion."""


def write_suite(folder: Path) -> None:
    """Writes the catalogs, `videos/<clip>.mp4` and `truth/<clip>.safetensors` of every clip, and `images/`; the same
    bytes each time.

    The truth is of the drawn frames, before compression; `load_truth` reads it. Raises VideoError if a video or image
    cannot be written, OSError if another file cannot.
    """
    for name in ("videos", "truth", "images"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    scenes, tuning, extra = suite(), tuning_scenes(), extra_scenes()
    for scene in (*scenes, *tuning, *extra):
        drawn = scene.draw()
        write_video(folder / _video(scene), drawn.frames, FPS)
        for place, image in zip(_images(scene), scene.images, strict=True):
            write_image(folder / place, image)
        _save_truth(folder / "truth" / f"{scene.name}.safetensors", drawn)
    _write_catalog(folder / CATALOG, scenes)
    _write_catalog(folder / QUICK, quick(scenes))
    _write_catalog(folder / TUNING, tuning)
    _write_catalog(folder / EXTRA, extra, more=True)


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


def _write_catalog(path: Path, scenes: Sequence[Scene], *, more: bool = False) -> None:
    """more: with the columns of a part of the motion and of images."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("clip", "video", "caption", "prompts", "class", *(_MORE if more else ())))
        for scene in scenes:
            row = (scene.name, _video(scene), scene.caption, SEPARATOR.join(scene.prompts), scene.group)
            region = "" if scene.region is None else ",".join(f"{part:g}" for part in scene.region)
            asked = (scene.motion_of if scene.motion_of != "all" else "", region, SEPARATOR.join(_images(scene)))
            table.writerow((*row, *(asked if more else ())))


_MORE = ("motion_of", "region", "images")


def _video(scene: Scene) -> str:
    return f"videos/{scene.name}.mp4"


def _images(scene: Scene) -> list[str]:
    return [f"images/{scene.name}-{number}.png" for number in range(1, len(scene.images) + 1)]


if __name__ == "__main__":
    write_suite(Path(sys.argv[1]))
