"""What is taken of a video is written down and said in one line."""

from pathlib import Path

import pytest

from effivmt.config import IngestParams
from effivmt.media.video import VideoInfo
from effivmt.pipeline.excerpt import take


def info(width: int, height: int, duration: float, aspect: float = 1.0) -> VideoInfo:
    """The facts of a video of 25 frames a second."""
    return VideoInfo(Path("a.mp4"), width, height, 25.0, duration, None, 0, "h264", aspect)


@pytest.mark.parametrize(
    ("of", "num_frames", "start", "line"),
    [
        (
            info(1280, 720, 7.2),
            81,
            1.5,
            "1.50 to 6.56 s of 7.20 s, the middle 720x720 of 1280x720",
        ),
        (info(64, 64, 5.0625), 81, 0.0, "0.00 to 5.06 s of 5.06 s, all of 64x64"),
        (
            info(720, 1280, 5.06),
            81,
            0.0,
            "0.00 to 5.06 s of 5.06 s, the middle 720x720 of 720x1280",
        ),
        (
            info(480, 480, 6, 2.0),
            81,
            0.0,
            "0.00 to 5.06 s of 6.00 s, the middle 240x480 of 480x480",
        ),
        (info(64, 64, 2.1), 33, 0.0, "0.00 to 2.06 s of 2.10 s, all of 64x64"),
    ],
)
def test_is_said_in_one_line(of: VideoInfo, num_frames: int, start: float, line: str) -> None:
    params = IngestParams(fps=16, num_frames=81, height=64, width=64)
    excerpt = take(of, num_frames, params, start=start)
    frames = "81 frames" if num_frames == 81 else "33 frames (not the 81 asked for: the video is too short)"
    assert excerpt.describe() == f"{frames} at 16 fps, {line}"
    assert excerpt.short == (num_frames < 81)
