"""An articulated figure: head, torso, arms and legs of two segments each, walking, waving, jumping or squatting."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from effivmt.world.drawing import draw_capsule
from effivmt.world.looks import rgb
from effivmt.world.motions import SIZE

THIGH = 9.5
"""Length of each leg segment, in pixels."""
ACTIONS = ("walking", "waving", "jumping", "squatting")
SKIN = np.array([236, 190, 150], np.float32)
TROUSERS = np.array([70, 70, 95], np.float32)


def draw_figure(canvas: np.ndarray, shirt: str, action: str, rng: np.random.Generator) -> np.ndarray:
    """Paints a figure doing `action` onto canvas float32 (T, H, W, 3), in place; returns its hip path (T, 2)."""
    num_frames = len(canvas)
    phase = 2 * np.pi * (rng.uniform() + rng.uniform(1.8, 2.8) * np.linspace(0, 1, num_frames))
    joints = pose(action, phase, rng)
    draw_skeleton(canvas, shirt, joints)
    return joints["hip"]


def draw_skeleton(canvas: np.ndarray, shirt: str, joints: dict[str, np.ndarray]) -> None:
    """Paints the limbs between joints (as `skeleton` gives them) onto canvas float32 (T, H, W, 3), in place."""
    for limb, thickness, colour in _LIMBS:
        paint = rgb(shirt) if colour is None else colour
        for start, stop in pairwise(limb):
            draw_capsule(canvas, joints[start], joints[stop], thickness, colour=paint)


def pose(action: str, phase: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Joint positions float32 (T, 2) in pixels, by name, of a figure whose cycle is at `phase` (T,) radians."""
    wave, half = np.sin(phase), 0.5 - 0.5 * np.cos(phase)
    still = np.zeros_like(phase)
    lift, crouch, x = still, still, np.full_like(phase, rng.uniform(24, 40))
    legs, arms = [(0.12 + still, still), (-0.12 + still, still)], [(0.25 + still, still), (-0.25 + still, still)]
    if action == "walking":
        way = rng.choice([-1.0, 1.0])
        x = SIZE / 2 + way * np.linspace(-16, 16, len(phase)) * rng.uniform(0.6, 1.0)
        legs = [(0.55 * wave, -0.25 * way * (1 + np.cos(phase))), (-0.55 * wave, -0.25 * way * (1 - np.cos(phase)))]
        arms = [(-0.5 * wave, still), (0.5 * wave, still)]
    elif action == "waving":
        arms = [(2.3 + still, 0.7 * wave), (-0.25 + still, still)]
    elif action == "jumping":
        lift, arms = 11.0 * np.maximum(wave, 0), [(0.3 + 2.2 * half, still), (-0.3 - 2.2 * half, still)]
    elif action == "squatting":
        crouch = 0.95 * half
        arms = [(0.25 + 1.2 * half, still), (-0.25 - 1.2 * half, still)]
    legs = [(hip + sign * crouch, knee - 2 * sign * crouch) for (hip, knee), sign in zip(legs, (1, -1), strict=True)]
    hip = np.stack([x, SIZE - 24.5 + THIGH * 2 * (1 - np.cos(crouch)) - lift], 1)
    return skeleton(hip, still, legs, arms)


def skeleton(
    hip: np.ndarray,
    lean: np.ndarray,
    legs: Sequence[tuple[np.ndarray, np.ndarray]],
    arms: Sequence[tuple[np.ndarray, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Joint positions float32 (T, 2) by name, from the hip (T, 2), the torso's lean and the limbs' angles.

    Angles (T,) in radians: lean from upright to the right; legs (hip, knee) and arms (shoulder, elbow), left then
    right, from straight down to the right, the second of each pair relative to the first.
    """
    shoulder = hip - _along(-lean, 13.0)
    joints = {"hip": hip, "shoulder": shoulder, "head": shoulder - _along(-lean, 7.0)}
    for side, (hip_angle, knee), (arm, elbow) in zip(("left", "right"), legs, arms, strict=True):
        joints[f"{side} knee"] = hip + _along(hip_angle, THIGH)
        joints[f"{side} foot"] = joints[f"{side} knee"] + _along(hip_angle + knee, THIGH)
        joints[f"{side} elbow"] = shoulder + _along(arm, 6.5)
        joints[f"{side} hand"] = joints[f"{side} elbow"] + _along(arm + elbow, 6.5)
    return {name: points.astype(np.float32) for name, points in joints.items()}


def _along(angle: np.ndarray, length: float) -> np.ndarray:
    """The vector of `length` pixels at `angle` (T,) from straight down; positive angles go right."""
    return length * np.stack([np.sin(angle), np.cos(angle)], 1)


_LIMBS = (
    (("hip", "left knee", "left foot"), 2.3, TROUSERS),
    (("hip", "right knee", "right foot"), 2.3, TROUSERS),
    (("shoulder", "left elbow", "left hand"), 1.9, SKIN),
    (("hip", "shoulder"), 4.4, None),
    (("shoulder", "right elbow", "right hand"), 1.9, SKIN),
    (("head", "head"), 4.6, SKIN),
)
