"""An ffmpeg program that is missing, or lacks the encoder, is said as such."""

from pathlib import Path

import numpy as np
import pytest

from effivmt.errors import VideoError
from effivmt.media.video import write_video

FRAMES = np.zeros((5, 16, 16, 3), np.uint8)


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "ffmpeg"))
    with pytest.raises(VideoError, match=r"ffmpeg program .*/ffmpeg cannot be started \(No such file.*IMAGEIO_FFMPEG"):
        write_video(tmp_path / "a.mp4", FRAMES, 8)


def test_a_program_without_the_encoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho \"[vost#0:0] Unknown encoder 'libx264'\" >&2\nexit 8\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    with pytest.raises(VideoError, match="ffmpeg has no encoder libx264; "):
        write_video(tmp_path / "a.mp4", FRAMES, 8)
