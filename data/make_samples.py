"""Draws the sample clips under data/samples/ and their catalog, data/catalog.csv.

The paths of single objects are of families that the embedded backbone was never trained on.

Run from the repository's root: python data/make_samples.py
"""

import csv
from pathlib import Path

import numpy as np

from effivmt.media.video import write_video
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import FPS, held_out
from effivmt.world.scenes import WorldClip, describe, describe_ground, draw_clip, object_clip

NUM_FRAMES = 81
SAMPLES = {
    "zigzag": (Look("square", "red", 10.0), Ground("navy")),
    "rectangle": (Look("circle", "yellow", 9.5), Ground("gray")),
    "figure eight": (Look("triangle", "cyan", 10.5), Ground("black")),
    "spiral": (Look("star", "orange", 10.0), Ground("brown")),
    "there and back": (Look("circle", "white", 9.0), Ground("navy")),
}


OTHERS = {"camera": 3, "pair": 5, "figure": 2}
"""Kind of scene and its number in the world's data set 77."""
CLASSES = {"camera": "camera motion", "pair": "multiple objects", "figure": "human motion"}
PROMPTS = {
    "object": ("a yellow star on a black background", "a purple square on a black background"),
    "camera": ("a view of a striped navy ground", "a view of a checkered brown ground with a red star"),
    "pair": ("a red star and a blue circle on a black background", "a white square and a green star"),
    "figure": ("a person in a red shirt on a black background", "a person in a yellow shirt on a navy background"),
}


def draw_samples() -> dict[str, tuple[str, WorldClip]]:
    """Every sample by its file's name: the kind of scene and the clip."""
    clips = {}
    for seed, (family, (look, ground)) in enumerate(SAMPLES.items()):
        motion = held_out(family, np.random.default_rng(seed), NUM_FRAMES, look.radius)
        caption = f"{describe(look)} on {describe_ground(ground)}"
        clips[family.replace(" ", "-")] = ("object", object_clip(look, ground, motion, caption))
    for kind, index in OTHERS.items():
        clips[kind] = (kind, draw_clip(77, index, kinds={kind: 1.0}, num_frames=NUM_FRAMES))
    return clips


def main() -> None:
    """Writes one mp4 a sample and the catalog, and prints the captions."""
    folder = Path(__file__).parent
    (folder / "samples").mkdir(exist_ok=True)
    rows = []
    for name, (kind, clip) in draw_samples().items():
        path = folder / "samples" / f"{name}.mp4"
        write_video(path, clip.frames, FPS)
        row = {"clip": name, "video": path.relative_to(folder).as_posix(), "caption": clip.caption}
        rows.append(row | {"prompts": " | ".join(PROMPTS[kind]), "class": CLASSES.get(kind, "single object")})
        print(f"{path.name}: {clip.caption}")
    with (folder / "catalog.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
