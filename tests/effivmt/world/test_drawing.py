"""Drawing touches what it must and nothing else."""

import numpy as np
import pytest

from effivmt.world.drawing import draw_capsule, pixel_grid


@pytest.mark.parametrize("shift", [0.0, -18.0, 45.0, 200.0])
def test_a_capsule_covers_what_its_distance_says(shift: float) -> None:
    start = np.array([[10.0, 12.0], [20.3, 30.1]], np.float32) + np.float32(shift)
    stop = np.array([[25.0, 40.0], [20.3, 30.1]], np.float32) + np.float32(shift)
    canvas = np.full((2, 64, 64, 3), 100.0, np.float32)
    draw_capsule(canvas, start, stop, 3.0, colour=np.array([200.0, 0.0, 50.0], np.float32))
    points = np.linspace(start, stop, 400)[:, :, None, None]
    distance = np.linalg.norm(pixel_grid()[None, None] - points, axis=-1).min(0)
    expected = np.clip(0.5 - (distance - 3.0), 0.0, 1.0)
    assert np.allclose((canvas[..., 0] - 100) / 100, expected, atol=0.02)
    assert (expected.max() == 1.0) == (shift < 100)
