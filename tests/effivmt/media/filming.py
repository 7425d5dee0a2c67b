"""Small real video files for the tests, made with PyAV and ffmpeg, and what is read back from them."""

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from effivmt.errors import VideoError
from effivmt.media import video

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CODES = {  # by container: codec, its pixel format, its options
    "mp4": ("libx264", "yuv420p", {"sc_threshold": "0"}),
    "mov": ("mpeg4", "yuv420p", {"qmin": "1", "qmax": "2"}),
    "mkv": ("libx264", "yuv420p", {"sc_threshold": "0"}),
    "webm": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "avi": ("libx264", "yuv420p", {"bf": "2"}),
    "gif": ("gif", "gray", {}),
}


def counting(num_frames: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    """Frames whose grey level is 5 times their number."""
    levels = np.arange(num_frames, dtype=np.uint8) * 5
    return np.broadcast_to(levels[:, None, None, None], (num_frames, *size, 3))


def numbers(frames: np.ndarray) -> list[int]:
    """The inverse of `counting`, for frames that went through a codec."""
    means = frames.mean(axis=(1, 2, 3))
    assert frames.std(axis=(1, 2, 3)).max() < 2
    return np.rint(means / 5).astype(int).tolist()


def encode(path, frames, *, fps=10, ticks=None, sound=0.0, sar=None, header=None, **options) -> Path:
    """Writes frames with PyAV, frame i shown from ticks[i] milliseconds on if ticks are given, with `sound` seconds."""
    codec, pixels, defaults = CODES[path.suffix[1:]]
    codec, pixels = options.pop("codec", codec), options.pop("pixels", pixels)
    with av.open(str(path), "w", options=header or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=defaults | options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixels
        stream.codec_context.thread_count = 1
        if sar is not None:
            stream.codec_context.sample_aspect_ratio = sar
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels), "rgba" if pixels.shape[2] == 4 else "rgb24"
            )
            frame.pts = i if ticks is None else ticks[i]
            frame.time_base = Fraction(1, fps) if ticks is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, int(8000 * sound)), np.float32), "fltp", "mono")
            samples.sample_rate = 8000
            container.mux(audio.encode(samples))
            container.mux(audio.encode(None))
    return path


def run_ffmpeg(*arguments) -> None:
    program = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run([program, "-y", "-v", "error", *map(str, arguments)], check=True, capture_output=True)


def failure(call, *arguments, **options) -> str:
    """The message of the VideoError that a call must raise."""
    with pytest.raises(VideoError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def clip(path: Path, num_frames: int, *, fps: float = 10, **options) -> np.ndarray:
    return video.read_clip(path, fps=fps, num_frames=num_frames, **({"height": 32, "width": 48} | options))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean())


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Position and size (bytes) of each video packet in a file, in decoding order."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def damage(path: Path, packet: int) -> None:
    """Overwrites the second half of a packet with zeros."""
    data = bytearray(path.read_bytes())
    position, size = packets_of(path)[packet]
    data[position + size // 2 : position + size] = bytes(size - size // 2)
    path.write_bytes(data)
