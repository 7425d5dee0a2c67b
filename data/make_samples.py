"""Draws the sample clips under data/samples/: paths of families that the embedded backbone was never trained on.

Run from the repository's root: python data/make_samples.py
"""

from pathlib import Path

import numpy as np

from effivmt.video import write_video
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import FPS, held_out
from effivmt.world.scenes import describe, describe_ground, object_clip

SAMPLES = {
    "zigzag": (Look("square", "red", 10.0), Ground("navy")),
    "rectangle": (Look("circle", "yellow", 9.5), Ground("gray")),
    "figure eight": (Look("triangle", "cyan", 10.5), Ground("black")),
    "spiral": (Look("star", "orange", 10.0), Ground("brown")),
    "there and back": (Look("circle", "white", 9.0), Ground("navy")),
}


def main() -> None:
    """Writes one mp4 a sample and prints its caption."""
    folder = Path(__file__).parent / "samples"
    folder.mkdir(exist_ok=True)
    for seed, (family, (look, ground)) in enumerate(SAMPLES.items()):
        motion = held_out(family, np.random.default_rng(seed), 33, look.radius)
        caption = f"{describe(look)} on {describe_ground(ground)}"
        path = folder / f"{family.replace(' ', '-')}.mp4"
        write_video(path, object_clip(look, ground, motion, caption).frames, FPS)
        print(f"{path.name}: {caption}")


if __name__ == "__main__":
    main()
