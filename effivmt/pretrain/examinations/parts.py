"""Clips of two motions whose truth is known, and how a video follows each: the wanted one alone, or those of two clips.

Two objects whose paths do not correlate, each in its own half of the frame; and an object on a path of its own under a
moving camera.
"""

from dataclasses import dataclass

import numpy as np

from effivmt.catalog import Box, MotionOf
from effivmt.evaluation.camera import camera_motion, moved, moves
from effivmt.evaluation.tracks import track
from effivmt.pretrain.examinations.judge import judge, path_scores
from effivmt.pretrain.examinations.scene_judge import object_path
from effivmt.world.drawing import draw_ground, draw_object
from effivmt.world.looks import COLOURS, Ground, Look
from effivmt.world.motions import HELD_OUT, SIZE, Motion

LOOKS = (Look("star", "red", 8.0), Look("circle", "cyan", 8.0))
TOGETHER = (("camera", "pair, upper"), ("camera, near", "pair, upper"))
"""Pairs of clips whose adapters are joined: the camera of the one, with the object of the other."""


@dataclass(frozen=True)
class PartClip:
    """A clip, the choice of one of its two motions, and prompts to render it with.

    frames uint8 (T, H, W, 3); wanted and other float32 (T, 2): the true paths, in pixels, of the motion that is chosen
    and of that which is not; of a camera, the ground's under the middle of the frame. `of_camera`: which of them is a
    camera's.
    """

    name: str
    frames: np.ndarray
    caption: str
    prompts: tuple[str, ...]
    motion_of: MotionOf
    region: Box | None
    wanted: np.ndarray
    other: np.ndarray
    of_camera: tuple[bool, bool] = (False, False)


def draw_parts(num_frames: int) -> list[PartClip]:
    """The clips: each of two objects, then a camera and the object under it.

    The ground repeats every 16 pixels. One camera goes 34 pixels from left to right, the near one 16.
    """
    t = np.linspace(0.0, 1.0, num_frames)
    upper, lower = (
        (centre + HELD_OUT[name](t) * reach).astype(np.float32)
        for name, centre, reach in (("there and back", (32, 18), (20, 7)), ("zigzag", (32, 46), (20, 6)))
    )
    still = np.zeros((num_frames, 4), np.float32)
    pair = _draw(Ground("navy"), still, [(LOOKS[0], upper), (LOOKS[1], lower)])
    said = "a red star and a cyan circle on a navy background"
    prompts = ("a yellow square on a black background", "a green square and a white triangle on a gray background")
    clips = [
        PartClip(f"pair, {name}", pair, said, prompts, "all", _around(path[0]), path, other)
        for name, path, other in (("upper", upper, lower), ("lower", lower, upper))
    ]
    over = (32 + HELD_OUT["there and back"](t) * 20).astype(np.float32)
    pans = []
    for reach in (17, 8):
        poses = still.copy()
        poses[:, 0] = reach * HELD_OUT["figure eight"](t)[:, 0]
        frames = _draw(Ground("brown", "checkered", 16.0, 1.6, (5.0, 9.0)), poses, [(LOOKS[1], over)])
        pans.append((frames, SIZE / 2 - poses[:, :2]))
    (pan, under), (near_pan, near_under) = pans
    said = "a view of a checkered brown ground with a cyan circle"
    views = ("a view of a spotted gray ground with a red square", "a view of a checkered navy ground with a white star")
    return [
        *clips,
        PartClip("camera", pan, said, views, "camera", None, under, over, (True, False)),
        PartClip("camera, near", near_pan, said, views, "camera", None, near_under, over, (True, False)),
        PartClip("object", pan, said, (prompts[0], views[1]), "object", None, over, under, (False, True)),
    ]


def score_part(clip: PartClip, prompt: str, frames: np.ndarray) -> tuple[float, float]:
    """How frames uint8 (T, 64, 64, 3), rendered for a prompt, follow the two motions of a clip of as many frames.

    Correlations with the path that was wanted and with the other, in [-1, 1]; 0 for what stands still. Of a video with
    two objects the one that follows the wanted path more is compared with it, the second one with the other path; a
    single object is compared with both.
    """
    paths = _object_paths(prompt, frames)
    if any(clip.of_camera):
        ground = ground_path(frames)
        mine, theirs = (ground if is_camera else paths[0] for is_camera in clip.of_camera)
    else:
        paths = paths if len(paths) > 1 else [judge(frames).path]
        mine = max(paths, key=lambda path: path_scores(path, clip.wanted)[0])
        theirs = next((path for path in paths if path is not mine), mine)
    return path_scores(mine, clip.wanted)[0], path_scores(theirs, clip.other)[0]


def score_together(camera: PartClip, thing: PartClip, prompt: str, frames: np.ndarray) -> tuple[float, float]:
    """How frames uint8 (T, 64, 64, 3), rendered for a prompt with one object, follow the wanted motions of two clips.

    Correlations of the ground with the camera's motion of the one, and of the object with the object's path of the
    other, in [-1, 1]; 0 for what stands still.
    """
    (path,) = _object_paths(prompt, frames)
    return path_scores(ground_path(frames), camera.wanted)[0], path_scores(path, thing.wanted)[0]


def ground_path(frames: np.ndarray) -> np.ndarray:
    """Where the ground under the middle of the first frame is in each of frames (T, H, W, 3): (T, 2) in pixels.

    It stays there where the ground shows no motion.
    """
    height, width = frames.shape[1:3]
    middle = np.array([[width / 2, height / 2]])
    camera = camera_motion(track(frames), height, width)
    if camera is None or not moves(camera, height, width):
        return np.repeat(middle, len(frames), 0)
    return np.concatenate([moved(middle, transform) for transform in camera.transforms])


def _object_paths(prompt: str, frames: np.ndarray) -> list[np.ndarray]:
    """The path (T, 2) of the thing of each colour that a prompt names."""
    return [object_path(frames, colour) for colour in COLOURS if colour in prompt.split()]


def _draw(ground: Ground, poses: np.ndarray, objects: list[tuple[Look, np.ndarray]]) -> np.ndarray:
    canvas = draw_ground(ground, poses)
    for look, path in objects:
        zero = np.zeros(len(path), np.float32)
        draw_object(canvas, look, Motion(path, zero, zero + 1))
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def _around(centre: np.ndarray) -> Box:
    """The region of an object on the first frame, in shares of its sides."""
    side = 2 * LOOKS[0].radius + 6
    x, y = (float(at - side / 2) / SIZE for at in centre)
    return x, y, side / SIZE, side / SIZE
