"""Frames and videos that several tests of effivmt.media.video share."""

import numpy as np
import pytest
from filming import BLUE, GREEN, RED, WHITE, encode
from PIL import Image


@pytest.fixture
def scene() -> np.ndarray:
    """Six smooth and colourful frames in motion."""
    noise = np.random.default_rng(0).integers(0, 255, (4, 7, 3), dtype=np.uint8)
    still = np.asarray(Image.fromarray(noise).resize((112, 64), Image.Resampling.BICUBIC))
    return np.stack([still[:, 2 * i : 2 * i + 96] for i in range(6)])


@pytest.fixture
def mirror(tmp_path) -> np.ndarray:
    """One frame with a different colour in each corner, as 8 frames of `mirror.mp4` in tmp_path."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24], image[:16, 24:], image[16:, :24], image[16:, 24:] = RED, GREEN, BLUE, WHITE
    encode(tmp_path / "mirror.mp4", np.broadcast_to(image, (8, 32, 48, 3)), crf="1")
    return image
