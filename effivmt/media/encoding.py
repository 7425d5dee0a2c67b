"""Encoding of video files by the ffmpeg program that comes with imageio-ffmpeg; ffmpeg-python builds its command."""

import subprocess
from fractions import Fraction
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np

from effivmt.errors import VideoError

TIMEOUT = 900.0  # seconds that one file may take to encode
ENCODER = "libx264"
FFMPEG_ADVICE = "unset IMAGEIO_FFMPEG_EXE or let it name a whole ffmpeg, or install imageio-ffmpeg again"
CRF = 12  # of libx264: visually lossless, also on small clips
SCALER = "bicubic+full_chroma_int+full_chroma_inp+accurate_rnd+bitexact"  # from RGB to YUV


def encode_h264(path: Path, frames: np.ndarray, fps: float) -> None:
    """Encodes RGB uint8 (T, H, W, 3), H and W even, as an H.264 mp4 in BT.709 yuv420p; same frames, same bytes.

    Raises VideoError with ffmpeg's message if it fails, and if it takes over `TIMEOUT` seconds (it is then killed).
    """
    height, width = frames.shape[1:3]
    source = ffmpeg.input(
        "pipe:0",
        protocol_whitelist="pipe",
        format="rawvideo",
        pixel_format="rgb24",
        video_size=(width, height),
        framerate=Fraction(fps).limit_denominator(100_000),
    )
    target = ffmpeg.output(
        source.filter("scale", out_color_matrix="bt709", out_range="tv", out_chroma_loc="left", flags=SCALER).filter(
            "setparams", colorspace="bt709", color_primaries="bt709", color_trc="bt709", range="tv"
        ),
        f"file:{path.absolute()}",
        format="mp4",
        vcodec=ENCODER,
        crf=CRF,
        pix_fmt="yuv420p",
        threads=1,
        fflags="+bitexact",
        flags="+bitexact",
        movflags="+faststart",
        protocol_whitelist="file",
    ).global_args("-y", "-loglevel", "error", "-filter_complex_threads", "1")
    program = ffmpeg_program()
    command = ffmpeg.compile(target, cmd=program)
    data = np.ascontiguousarray(frames).reshape(-1).data
    try:
        subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT, check=True)
    except subprocess.TimeoutExpired as error:
        raise VideoError(
            f"encoding {len(frames)} frames took over {TIMEOUT:.0f} s: write fewer or smaller ones"
        ) from error
    except subprocess.CalledProcessError as error:
        message = " / ".join(error.stderr.decode(errors="replace").splitlines()[:2])
        if f"Unknown encoder '{ENCODER}'" in message:
            raise VideoError(f"the ffmpeg program {program} has no encoder {ENCODER}; {FFMPEG_ADVICE}") from error
        raise VideoError(
            f"ffmpeg cannot write a video of {width}x{height} in {str(path.parent)!r} ({message}): "
            "check the folder and its free space"
        ) from error
    except OSError as error:
        raise VideoError(
            f"the ffmpeg program {program} cannot be started ({error.strerror}); {FFMPEG_ADVICE}"
        ) from error


def ffmpeg_program() -> str:
    """The ffmpeg program: that of IMAGEIO_FFMPEG_EXE, else that of imageio-ffmpeg, else the system's.

    VideoError where there is none.
    """
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise VideoError(f"there is no ffmpeg program; {FFMPEG_ADVICE}") from error
