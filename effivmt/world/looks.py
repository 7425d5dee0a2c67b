"""Names and pixel values of everything that can be seen in the procedural world."""

from dataclasses import dataclass

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "green": (40, 185, 60),
    "blue": (45, 95, 240),
    "yellow": (245, 220, 45),
    "purple": (160, 60, 200),
    "orange": (250, 140, 25),
    "cyan": (50, 215, 225),
    "white": (245, 245, 245),
}
GROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (10, 10, 12),
    "navy": (18, 24, 84),
    "gray": (118, 118, 118),
    "brown": (105, 66, 33),
}
SHAPES = ("circle", "square", "triangle", "star")
OBJECT_PATTERNS = ("plain", "striped", "checkered", "outlined", "two-coloured")
GROUND_PATTERNS = ("plain", "striped", "checkered", "spotted")

HELD_OUT_LOOKS = frozenset(
    (colour, shape, ground)
    for i, colour in enumerate(COLOURS)
    for j, shape in enumerate(SHAPES)
    for k, ground in enumerate(GROUNDS)
    if (i + 3 * j + 5 * k) % 8 == 0
)
"""Combinations of colour, shape and ground (16 of 128) that no caption in training names: kept for judging."""


@dataclass(frozen=True)
class Look:
    """How one object looks: a shape of `radius` pixels in `colour`, its pattern drawn in `second`."""

    shape: str
    colour: str
    radius: float
    pattern: str = "plain"
    second: str = "white"


@dataclass(frozen=True)
class Ground:
    """How the ground looks: `colour`, and a pattern of cells `cell` pixels wide in a lighter or darker shade."""

    colour: str
    pattern: str = "plain"
    cell: float = 12.0
    shade: float = 1.5
    offset: tuple[float, float] = (0.0, 0.0)


def rgb(name: str) -> np.ndarray:
    """float32 (3,) value in [0, 255] of an object or ground colour."""
    return np.asarray(COLOURS[name] if name in COLOURS else GROUNDS[name], np.float32)


def names_held_out(caption: str) -> bool:
    """Whether a caption names all three of a combination in `HELD_OUT_LOOKS`."""
    words = set(caption.split())
    return any(words.issuperset(combination) for combination in HELD_OUT_LOOKS)


def random_look(rng: np.random.Generator, *, patterned: float) -> Look:
    """An object's look; with probability `patterned` it is not plain."""
    colour, second = rng.choice(list(COLOURS), size=2, replace=False)
    pattern = str(rng.choice(OBJECT_PATTERNS[1:])) if rng.random() < patterned else "plain"
    return Look(str(rng.choice(SHAPES)), str(colour), float(rng.uniform(8.0, 11.5)), pattern, str(second))


def random_ground(rng: np.random.Generator, *, patterned: float) -> Ground:
    """A ground's look; with probability `patterned` it is not plain."""
    pattern = str(rng.choice(GROUND_PATTERNS[1:])) if rng.random() < patterned else "plain"
    shade = 1.6 if rng.random() < 0.5 else 0.55
    x, y = rng.uniform(0, 40, 2)
    return Ground(str(rng.choice(list(GROUNDS))), pattern, float(rng.uniform(14, 22)), shade, (float(x), float(y)))
