"""Which part of a clip's motion is wanted: its mask, and the clip with all other motion taken out.

What moves is found against the ground, the median of the frames under the camera's motion. What is not wanted is hidden
by that ground, so that no latent of the clip shows it, and its places count nothing in the losses.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from effivmt.catalog import Box, MotionOf
from effivmt.errors import VideoError
from effivmt.evaluation.camera import Followed, camera_motion, follow, moved, moves
from effivmt.evaluation.tracks import Tracks, track

CONTRAST = 24
"""A pixel moves if it lies farther than this, in gray levels, outside the ground's values around it."""
SAMPLES = 25
"""Frames that the ground is the median of."""
LARGEST = 6.0
"""Most pixels of the ground that a moving camera shows in all, in frames; a larger one is made coarser."""
REACH = 0.12
"""How far around its tracked points a thing may reach, in widths of the frame: the ground is not taken from there."""
MOSTLY = 0.6
"""A moving body belongs to a region whole if at least this share of it lies inside; else only what lies inside does."""
MARGIN = 0.15
"""How much a region grows on each side after the first frame, in its own sides."""
FOLLOWED = 0.5
"""A region must be followed through at least this share of the frames."""
GROWTH = 6 / 64
"""How far the region of an adapter reaches around the wanted thing, in widths of the frame: a new thing has another
outline. Of an object of radius 8 on 64 pixels, of which the mask has 10, a disc of radius 16 was followed best."""


@dataclass(frozen=True)
class Part:
    """The wanted part of a clip of T frames.

    wanted bool (T, H, W): where the wanted motion is; hidden bool (T, H, W): where other motion was taken out; frames
    uint8 (T, H, W, 3): the clip without it.
    """

    wanted: np.ndarray
    hidden: np.ndarray
    frames: np.ndarray


def wanted_part(frames: np.ndarray, motion_of: MotionOf, region: Box | None) -> Part:
    """The part of frames uint8 (T, H, W, 3) that moves as asked for; region: on the
    first frame, in shares of its sides.

    `camera`: the moving ground, without the things on it. `object`: what moves against the ground, on the screen, over
    a still ground. A region is followed through the clip, and what is in it is kept: what moves against the ground or,
    for `all`, where nothing does, the region itself. VideoError where there is no such motion.
    """
    height, width = frames.shape[1:3]
    tracks = track(frames)
    camera = camera_motion(tracks, height, width)
    if motion_of == "camera" and (camera is None or not moves(camera, height, width)):
        reason = "its ground has too few corners to tell" if camera is None else "the ground stands still"
        raise VideoError(
            f"no camera motion was found in the clip ({reason}); ask for the motion of all, or of an object"
        )
    moving_camera = camera if camera is not None and moves(camera, height, width) else None
    ground = ground_of(frames, moving_camera, _near_things(tracks, _deviating(tracks, camera, width), frames.shape[:3]))
    moving = moving_against(frames, ground)
    still = np.broadcast_to(ground[:1], frames.shape)
    if motion_of == "camera":
        return Part(~moving, moving, np.where(moving[..., None], ground, frames))
    wanted = moving if region is None else _inside(moving, tracks, camera, region, whole=motion_of == "all")
    if not wanted.any():
        where = "in the clip" if region is None else "in the region"
        raise VideoError(f"nothing {where} moves against its ground; ask for the motion of all, or of the camera")
    return Part(wanted, moving & ~wanted, np.where(wanted[..., None], frames, still))


def ground_of(frames: np.ndarray, camera: Followed | None, things: np.ndarray) -> np.ndarray:
    """The ground in each of frames uint8 (T, H, W, 3), without what moves over it: uint8 (T, H, W, 3).

    The median of the frames, laid over each other as the camera moved (None: it stands still), without `things`, bool
    (T, H, W), where it shows elsewhere too.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, SAMPLES).round().astype(int))
    if camera is None:
        canvas = _median(frames[chosen], np.ones((len(chosen), *frames.shape[1:3]), bool), things[chosen])
        return np.broadcast_to(canvas, frames.shape)
    placed, size = _canvas(camera.transforms, *frames.shape[1:3])
    layers = np.zeros((len(chosen), *size, 3), np.uint8)
    seen, covered = (np.zeros((len(chosen), *size), bool) for _ in range(2))
    for layer, shown, thing, t in zip(layers, seen, covered, chosen, strict=True):
        onto = placed @ np.linalg.inv(camera.transforms[t])
        layer[:] = _warp(frames[t], onto, size)
        shown[:] = _warp(np.full(frames.shape[1:3], 255, np.uint8), onto, size) == 255
        thing[:] = _warp(things[t].astype(np.uint8), onto, size) > 0
    canvas, known = _median(layers, seen, covered), seen.any(0)
    ground = np.empty_like(frames)
    for t in range(len(frames)):
        back = camera.transforms[t] @ np.linalg.inv(placed)
        shown = _warp(np.where(known, 255, 0).astype(np.uint8), back, frames.shape[1:3])[..., None] == 255
        ground[t] = np.where(shown, _warp(canvas, back, frames.shape[1:3]), frames[t])
    return ground


def _median(layers: np.ndarray, seen: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Median of layers uint8 (K, H, W, 3) where they are seen and, if any is, not covered, bool (K, H, W) each."""
    clear = seen & ~covered
    used = np.where(clear.any(0), clear, seen)
    canvas = np.zeros(layers.shape[1:], np.uint8)
    for row in range(len(canvas)):  # row by row: the median of all at once takes many times the memory of the layers
        columns = used[:, row].any(0)
        values = np.where(used[:, row, columns, None], layers[:, row, columns].astype(np.float32), np.nan)
        canvas[row, columns] = np.nanmedian(values, axis=0).round()
    return canvas


def moving_against(frames: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Where frames uint8 (T, H, W, 3) show something else than their ground, and the pixels around: bool (T, H, W).

    A difference that a shift of the ground by a pixel explains does not count, nor do specks.
    """
    unit = max(1, round(min(frames.shape[1:3]) / 64))
    near, speck = np.ones((2 * unit + 1,) * 2, np.uint8), np.ones((unit + 1,) * 2, np.uint8)
    moving = np.zeros(frames.shape[:3], bool)
    for t, (frame, behind) in enumerate(zip(frames, ground, strict=True)):
        above, below = cv2.subtract(frame, cv2.dilate(behind, near)), cv2.subtract(cv2.erode(behind, near), frame)
        differs = (np.maximum(above, below).max(-1) > CONTRAST).astype(np.uint8)
        moving[t] = cv2.dilate(cv2.morphologyEx(differs, cv2.MORPH_OPEN, speck), near, iterations=2) > 0
    return moving


def latent_weights(hidden: np.ndarray, latents: tuple[int, int, int]) -> np.ndarray:
    """How much each position of latents (F, h, w) counts, float32: 0 where a pixel of it is hidden, else 1.

    hidden bool (T, H, W), T = 4 (F - 1) + 1: the first frame has a latent frame of its own, then four share one.
    """
    frames, height, width = latents
    cells = _by_latent_frame(hidden, frames).reshape(
        frames, height, hidden.shape[1] // height, width, hidden.shape[2] // width
    )
    return np.where(cells.any((2, 4)), 0, 1).astype(np.float32)


def latent_region(wanted: np.ndarray, latents: tuple[int, int, int]) -> np.ndarray:
    """Where in latents (F, h, w) an adapter of the wanted part acts beside others: float32 (F, h, w), 1 there, else 0.

    wanted bool (T, H, W), T = 4 (F - 1) + 1: what is wanted in any frame of a latent frame, grown by `GROWTH`. A
    position is in the region if at least half of its pixels are.
    """
    frames, height, width = latents
    reach = max(1, round(GROWTH * wanted.shape[2]))
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2)
    seen = np.stack([cv2.dilate(shown.astype(np.uint8), near) for shown in _by_latent_frame(wanted, frames)])
    cells = seen.reshape(frames, height, wanted.shape[1] // height, width, wanted.shape[2] // width)
    return (cells.mean((2, 4)) >= 0.5).astype(np.float32)


def _by_latent_frame(mask: np.ndarray, frames: int) -> np.ndarray:
    """Where a mask, bool (T, H, W), is in any frame of each latent frame: bool (frames, H, W)."""
    grouped = [mask[:1], *np.split(mask[1:], frames - 1)] if frames > 1 else [mask]
    return np.stack([group.any(0) for group in grouped])


def shown_mask(frames: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) with all but the wanted part grey and dark, and a light line around it."""
    grey = (frames.mean(-1, keepdims=True) * 0.35).round().astype(np.uint8).repeat(3, axis=-1)
    shown = np.where(wanted[..., None], frames, grey)
    unit = max(1, round(min(frames.shape[1:3]) / 128))
    for frame, mask in zip(shown, wanted.astype(np.uint8), strict=True):
        frame[(cv2.dilate(mask, np.ones((2 * unit + 1,) * 2, np.uint8)) > 0) & (mask == 0)] = _LINE
    return shown


_LINE = (240, 228, 66)


def _inside(moving: np.ndarray, tracks: Tracks, camera: Followed | None, region: Box, *, whole: bool) -> np.ndarray:
    """What moves against the ground inside a region, which is followed through the clip; bool (T, H, W).

    whole: all of the region where nothing in it does.
    """
    height, width = moving.shape[1:]
    low = np.array(region[:2]) * (width, height) - 0.5
    high = low + np.array(region[2:]) * (width, height)
    within = _within(low, high)
    start = tracks.visible[:, 0] & within(tracks.points[:, 0])
    if not start.any():
        raise VideoError(
            f"nothing can be tracked in the region {_named(region)} of the first frame: it shows no corner or texture; "
            "choose a larger one, or one around something with an outline"
        )
    deviates = _deviating(tracks, camera, width)
    own = start & deviates if (start & deviates).any() else start
    joining = deviates if (start & deviates).any() else ~deviates
    followed = follow(tracks, own, width=width, joins=lambda places, born: within(places) & joining[born])
    if followed.found.mean() < FOLLOWED:
        lost = int((~followed.found).argmax())
        raise VideoError(
            f"the region {_named(region)} is lost from frame {lost} of {len(moving)} on: too little in it can be "
            "tracked; choose a larger one, or another first frame by the clip's start"
        )
    grown = np.array([low, high]) + MARGIN * (high - low) * [[-1], [1]]  # on its way a body turns, and its box drifts
    (left, top), (right, bottom) = grown
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    boxes = np.zeros(moving.shape, np.uint8)
    for box, transform in zip(boxes, followed.transforms, strict=True):
        cv2.fillConvexPoly(box, moved(corners, transform).round().astype(np.int32), 1)
    if whole and not (start & deviates).any():
        return boxes > 0
    back = [moved(tracks.points[:, t], np.linalg.inv(it)) for t, it in enumerate(followed.transforms)]
    inside = np.stack([_within(*grown)(places) for places in back], 1) & tracks.visible
    others = deviates & ~followed.points & (inside.sum(1) < 0.5 * tracks.visible.sum(1))
    wanted = np.zeros_like(moving)
    for t, box in enumerate(boxes > 0):
        mine, theirs = (tracks.points[which & tracks.visible[:, t], t] for which in (followed.points, others))
        wanted[t] = _bodies(moving[t] & _nearer(mine, theirs, (height, width)), box)
    return wanted


def _bodies(moving: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The moving bodies, bool (H, W), that lie mostly in a box, and of the others the part inside."""
    count, labels = cv2.connectedComponents(moving.astype(np.uint8))
    inside = np.bincount(labels[box], minlength=count) >= MOSTLY * np.bincount(labels.ravel(), minlength=count)
    inside[0] = False
    return inside[labels] | (moving & box)


def _nearer(mine: np.ndarray, theirs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which pixels of a frame lie nearer to one of the points `mine` (N, 2) than to any of `theirs`: bool (H, W)."""
    if not len(mine) or not len(theirs):
        return np.ones(size, bool)
    return _distance(mine, size) <= _distance(theirs, size)


def _distance(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Distance of every pixel of a frame from the nearest of some points (N, 2): (H, W)."""
    away = np.ones(size, np.uint8)
    x, y = np.clip(points.round().astype(int), 0, (size[1] - 1, size[0] - 1)).T
    away[y, x] = 0
    return cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _near_things(tracks: Tracks, deviates: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """Where a thing that moves by itself may be: within `REACH` of its points, and nearer to them than to others.

    bool (T, H, W).
    """
    near = np.zeros(size, bool)
    for t, frame in enumerate(near):
        mine, theirs = (tracks.points[which & tracks.visible[:, t], t] for which in (deviates, ~deviates))
        if len(mine):
            frame[:] = (_distance(mine, size[1:]) <= REACH * size[2]) & _nearer(mine, theirs, size[1:])
    return near


def _deviating(tracks: Tracks, camera: Followed | None, width: int) -> np.ndarray:
    """Which tracks do not go with the ground, or leave their first place where it shows no motion: bool (N,)."""
    if camera is not None:
        return ~camera.points
    first = tracks.points[np.arange(len(tracks.points)), tracks.visible.argmax(1)]
    return np.linalg.norm(tracks.points - first[:, None], axis=-1).max(1) > 0.04 * width


def _within(low: np.ndarray, high: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda points: np.asarray(((points >= low) & (points <= high)).all(-1))


def _named(region: Box) -> str:
    return ",".join(f"{part:.3g}" for part in region)


def _canvas(transforms: np.ndarray, height: int, width: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Where the first frame's pixels lie on a canvas that has room for what all frames show, and its size."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    reached = np.concatenate([moved(corners, np.linalg.inv(it)) for it in transforms])
    low, high = np.floor(reached.min(0)), np.ceil(reached.max(0))
    sides = high - low + 1
    finest = np.linalg.norm(transforms[:, 0, :2], axis=1).max()
    scale = min(max(1.0, finest), 2.0, (LARGEST * height * width / sides.prod()) ** 0.5)
    placed = np.array([[scale, 0, -scale * low[0]], [0, scale, -scale * low[1]], [0, 0, 1]])
    return placed, (int(np.ceil(sides[1] * scale)), int(np.ceil(sides[0] * scale)))


def _warp(image: np.ndarray, transform: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.warpPerspective(image, transform, size[::-1], flags=cv2.INTER_LINEAR)
