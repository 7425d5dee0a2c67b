"""The camera's motion is told from that of things on the ground, over whole clips."""

import numpy as np
import pytest

from effivmt.evaluation.camera import camera_motion, moves
from effivmt.evaluation.tracks import track
from effivmt.world.drawing import draw_ground, draw_object
from effivmt.world.looks import Ground, Look
from effivmt.world.motions import SIZE, Motion

T = 33


def filmed(poses: np.ndarray, ground: Ground, path: np.ndarray | None = None) -> np.ndarray:
    canvas = draw_ground(ground, poses.astype(np.float32))
    if path is not None:
        zero = np.zeros(len(path), np.float32)
        draw_object(
            canvas, Look("star", "red", 10.0, "checkered", "white"), Motion(path.astype(np.float32), zero, zero + 1)
        )
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def poses(**courses: np.ndarray) -> np.ndarray:
    """Camera poses (T, 4) of these courses of x, y, zoom and angle."""
    return np.stack([courses.get(name, np.zeros(T)) for name in ("x", "y", "zoom", "angle")], 1)


t = np.linspace(0, 1, T)
CHECKERED = Ground("brown", "checkered", 16.0, 1.6, (5, 9))
SPOTTED = Ground("navy", "spotted", 18.0, 1.6, (3, 4))
BACK_AND_FORTH = np.stack([32 + 18 * np.sin(2 * np.pi * t), 24 + 14 * t], 1)


def test_a_pan_is_found_under_an_object_with_a_path_of_its_own():
    pan = poses(x=34 * np.sin(np.pi * t), y=-12 * t)
    found = camera_motion(track(filmed(pan, CHECKERED, BACK_AND_FORTH)), SIZE, SIZE)
    assert moves(found, SIZE, SIZE) and found.found.all()
    middle = found.transforms @ [31.5, 31.5, 1]
    assert np.abs(middle[:, :2] - 31.5 + pan[:, :2]).max() < 1.0


def test_a_zoom_and_a_turn_do_not_drift():
    filming = poses(zoom=0.3 * t, angle=-0.35 * t)
    found = camera_motion(track(filmed(filming, SPOTTED, BACK_AND_FORTH)), SIZE, SIZE)
    last = found.transforms[-1]
    assert np.log(np.hypot(last[0, 0], last[1, 0])) == pytest.approx(0.3, abs=0.05)
    assert np.arctan2(last[1, 0], last[0, 0]) == pytest.approx(-0.35, abs=0.05)


def test_a_camera_at_rest_does_not_move():
    found = camera_motion(track(filmed(poses(), CHECKERED, BACK_AND_FORTH)), SIZE, SIZE)
    assert found is not None and not moves(found, SIZE, SIZE)


def test_over_a_plain_ground_there_is_nothing_to_tell_it_by():
    assert camera_motion(track(filmed(poses(), Ground("navy"), BACK_AND_FORTH)), SIZE, SIZE) is None
    assert camera_motion(track(filmed(poses(), Ground("navy"))), SIZE, SIZE) is None
