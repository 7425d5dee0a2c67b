"""Random captioned scenes of the procedural world.

Captions, in plain English; each bracketed part may be left out and then varies:

    a [striped] [red] circle|shape [moving left] [on a [checkered] [navy] background]
    a red circle [going from the top left to the bottom] ...               any path, by its two ends
    a ... and a ... [on a ... background]                                  two objects
    the camera pans left over a [striped] [brown] ground [with a red star]  camera motion
    a person [in a red shirt] [walking] [on a ... background]              articulated figure

A still says no motion but where its objects are: a red circle [at the top left] and a ... [on a ... background].
"""

from dataclasses import dataclass, field, replace
from typing import TypedDict

import numpy as np

from effivmt.world import motions
from effivmt.world.drawing import draw_ground, draw_object
from effivmt.world.figure import ACTIONS, draw_figure
from effivmt.world.looks import COLOURS, Ground, Look, random_ground, random_look
from effivmt.world.motions import Motion

KINDS = ("object", "camera", "pair", "figure")
NUM_FRAMES = 33


class Facts(TypedDict, total=False):
    """Ground truth of a clip; which of these there are depends on its `kind`, one of `KINDS` or "still"."""

    kind: str
    ground: Ground
    look: Look
    cover: np.ndarray
    motion: Motion
    phrase: str | None
    looks: list[Look]
    motions: list[Motion]
    phrases: list[str | None]
    places: list[np.ndarray]
    camera: str
    shirt: str
    action: str
    path: np.ndarray


@dataclass(frozen=True)
class WorldClip:
    """frames uint8 (T, H, W, 3), its caption, and what is truly there, whether the caption says it or not."""

    frames: np.ndarray
    caption: str
    facts: Facts = field(default_factory=Facts)


@dataclass(frozen=True)
class Mix:
    """What a data set is made of: how likely a caption names each attribute, how likely one object and its ground are
    patterned (probabilities in [0, 1]), and by which weights named motions are drawn (None: evenly)."""

    colour: float = 0.9
    shape: float = 0.9
    pattern: float = 0.5
    ground: float = 0.85
    motion: float = 0.85
    place: float = 0.7
    route: float = 0.5
    patterned_object: float = 0.25
    patterned_ground: float = 0.15
    motions: dict[str, float] | None = None


def draw_clip(
    seed: int, index: int, *, kinds: dict[str, float], num_frames: int = NUM_FRAMES, mix: Mix | None = None
) -> WorldClip:
    """Clip number `index` of the endless data set `seed`, its kind drawn by the weights `kinds`, the rest by `mix`.

    Whatever its `num_frames`, it shows the same scene and the whole of what moves, from start to end.
    """
    rng = np.random.default_rng([seed, index])
    return _KINDS[_choose(rng, kinds)](rng, num_frames, mix or Mix())


def draw_still(seed: int, index: int, *, kinds: dict[str, float], mix: Mix | None = None) -> WorldClip:
    """Still number `index` of the endless data set `seed`: one frame (1, H, W, 3) of a clip at a random moment."""
    rng = np.random.default_rng([seed, index, 1])
    kind, mix = _choose(rng, kinds), mix or Mix()
    if kind in ("object", "pair"):
        return _still(rng, ("object", "pair").index(kind) + 1, mix)
    clip, moment = _KINDS[kind](rng, NUM_FRAMES, replace(mix, motion=0.0)), int(rng.integers(NUM_FRAMES))
    return replace(clip, frames=clip.frames[moment : moment + 1])


def object_clip(look: Look, ground: Ground, motion: Motion, caption: str, *, facts: Facts | None = None) -> WorldClip:
    """One object of a given look on a given ground along a given path."""
    canvas = draw_ground(ground, np.zeros((len(motion.centre), 4), np.float32))
    cover = draw_object(canvas, look, motion)
    true: Facts = {"kind": "object", "look": look, "ground": ground, "motion": motion, "cover": cover}
    return WorldClip(_to_pixels(canvas), caption, true | (facts or {}))


def describe(look: Look, *, colour: bool = True, shape: bool = True, pattern: bool = False) -> str:
    """The noun phrase of an object, naming only what is asked for."""
    words = [look.pattern] if pattern and look.pattern != "plain" else []
    words += [look.colour] if colour else []
    words.append(look.shape if shape else "shape")
    return with_article(" ".join(words))


def describe_ground(ground: Ground, *, colour: bool = True, pattern: bool = False, noun: str = "background") -> str:
    """The noun phrase of a ground, naming only what is asked for."""
    words = [ground.pattern] if pattern and ground.pattern != "plain" else []
    words += [ground.colour] if colour else []
    return with_article(" ".join([*words, noun]))


def place_of(centre: np.ndarray) -> str:
    """The name of a place (2,) in pixels: "the left", "the bottom right", …, "the middle"."""
    names = (("left", "right"), ("top", "bottom"))
    parts = [low if at < 26 else high for at, (low, high) in zip(centre, names, strict=True) if not 26 <= at <= 38]
    return f"the {' '.join(reversed(parts) if parts else ['middle'])}"


def with_article(words: str) -> str:
    """Puts "a" or "an" before a noun phrase."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def _choose(rng: np.random.Generator, kinds: dict[str, float]) -> str:
    weights = np.array(list(kinds.values()), float)
    return list(kinds)[int(rng.choice(len(kinds), p=weights / weights.sum()))]


def _object(rng: np.random.Generator, num_frames: int, mix: Mix) -> WorldClip:
    look = random_look(rng, patterned=mix.patterned_object)
    ground = random_ground(rng, patterned=mix.patterned_ground)
    motion, phrase = _random_motion(rng, num_frames, look.radius, mix.motions)
    said, on = _say_object(rng, look, phrase, mix), _say_ground(rng, ground, mix)
    if not (phrase and said.endswith(phrase)) and rng.random() < mix.route:
        said += f" going from {place_of(motion.centre[0])} to {place_of(motion.centre[-1])}"
    return object_clip(look, ground, motion, said + on, facts={"phrase": phrase})


def _camera(rng: np.random.Generator, num_frames: int, mix: Mix) -> WorldClip:
    ground = random_ground(rng, patterned=1.0)
    name = str(rng.choice(list(motions.CAMERA)))
    canvas = draw_ground(ground, motions.camera(name, rng, num_frames))
    says = rng.random(2) < (mix.pattern, mix.ground)
    scenery = describe_ground(ground, colour=says[1], pattern=says[0], noun="ground")
    caption = f"the camera {name} over {scenery}" if rng.random() < mix.motion else f"a view of {scenery}"
    facts: Facts = {"kind": "camera", "ground": ground, "camera": name}
    if rng.random() < 0.5:
        look = random_look(rng, patterned=0.0)
        still = np.repeat(rng.uniform(20, 44, (1, 2)), num_frames, 0).astype(np.float32)
        cover = draw_object(
            canvas, look, Motion(still, np.zeros(num_frames, np.float32), np.ones(num_frames, np.float32))
        )
        caption += " with " + _say_object(rng, look, None, mix)
        facts |= {"look": look, "cover": cover}
    return WorldClip(_to_pixels(canvas), caption, facts)


def _pair(rng: np.random.Generator, num_frames: int, mix: Mix) -> WorldClip:
    ground = random_ground(rng, patterned=0.1)
    canvas = draw_ground(ground, np.zeros((num_frames, 4), np.float32))
    looks, paths, phrases = [], [], []
    for _ in range(2):
        look = random_look(rng, patterned=0.15)
        motion, phrase = _random_motion(rng, num_frames, look.radius, mix.motions)
        draw_object(canvas, look, motion)
        looks.append(look)
        paths.append(motion)
        phrases.append(phrase)
    said = [_say_object(rng, look, phrase, mix) for look, phrase in zip(looks, phrases, strict=True)]
    caption = " and ".join(said) + _say_ground(rng, ground, mix)
    facts: Facts = {"kind": "pair", "looks": looks, "ground": ground, "motions": paths, "phrases": phrases}
    return WorldClip(_to_pixels(canvas), caption, facts)


def _figure(rng: np.random.Generator, num_frames: int, mix: Mix) -> WorldClip:
    ground = random_ground(rng, patterned=0.15)
    canvas = draw_ground(ground, np.zeros((num_frames, 4), np.float32))
    shirt, action = str(rng.choice(list(COLOURS))), str(rng.choice(ACTIONS))
    path = draw_figure(canvas, shirt, action, rng)
    says = rng.random(2) < (mix.colour, mix.motion)
    caption = "a person" + (f" in {with_article(shirt)} shirt" if says[0] else "") + (f" {action}" if says[1] else "")
    caption += _say_ground(rng, ground, mix)
    facts: Facts = {"kind": "figure", "shirt": shirt, "action": action, "ground": ground, "path": path}
    return WorldClip(_to_pixels(canvas), caption, facts)


def _still(rng: np.random.Generator, count: int, mix: Mix) -> WorldClip:
    """One or two objects at a moment of their motions."""
    ground = random_ground(rng, patterned=mix.patterned_ground)
    canvas = draw_ground(ground, np.zeros((1, 4), np.float32))
    moment, looks, places, said = int(rng.integers(NUM_FRAMES)), [], [], []
    for _ in range(count):
        look = random_look(rng, patterned=mix.patterned_object)
        motion, _ = _random_motion(rng, NUM_FRAMES, look.radius, mix.motions)
        now = Motion(*(values[moment : moment + 1] for values in (motion.centre, motion.angle, motion.scale)))
        draw_object(canvas, look, now)
        text = _say_object(rng, look, None, mix)
        said.append(text + f" at {place_of(now.centre[0])}" if rng.random() < mix.place else text)
        looks.append(look)
        places.append(now.centre[0])
    caption = " and ".join(said) + _say_ground(rng, ground, mix)
    return WorldClip(_to_pixels(canvas), caption, {"kind": "still", "looks": looks, "ground": ground, "places": places})


_KINDS = {"object": _object, "camera": _camera, "pair": _pair, "figure": _figure}


def _random_motion(
    rng: np.random.Generator, num_frames: int, radius: float, weights: dict[str, float] | None
) -> tuple[Motion, str | None]:
    """Half of all paths are motions named by these weights (None: evenly), half wander (and have no phrase)."""
    if rng.random() < 0.5:
        return motions.wander(rng, num_frames, radius), None
    phrase = _choose(rng, weights) if weights else str(rng.choice(list(motions.NAMED)))
    return motions.named(phrase, rng, num_frames, radius), phrase


def _say_object(rng: np.random.Generator, look: Look, phrase: str | None, mix: Mix) -> str:
    says = rng.random(4) < (mix.colour, mix.shape, mix.pattern, mix.motion)
    text = describe(look, colour=bool(says[0]), shape=bool(says[1]), pattern=bool(says[2]))
    return f"{text} {phrase}" if phrase and says[3] else text


def _say_ground(rng: np.random.Generator, ground: Ground, mix: Mix) -> str:
    says = rng.random(2) < (mix.ground, mix.pattern)
    return " on " + describe_ground(ground, colour=True, pattern=bool(says[1])) if says[0] else ""


def _to_pixels(canvas: np.ndarray) -> np.ndarray:
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
