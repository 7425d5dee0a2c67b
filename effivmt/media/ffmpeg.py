"""Decoding of video files by FFmpeg, in this process through PyAV: a raw pipe from the ffmpeg program loses what
sampling needs, each frame's own presentation time, its display matrix and its corruption flag.

A video is untrusted input. libav reads it from an open file object and never learns its path, accepts plain containers
only (no playlist, no concatenation list), and may open no protocol: no file can make it read another file or a URL.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from effivmt.errors import VideoError
from effivmt.media.file_kinds import WEBP_HEADER, is_animated_webp, is_whole_matroska
from effivmt.media.frame_colours import MATRICES, frame_rgb, tag_matrix

CONTAINERS = "mov,mp4,matroska,webm,avi,gif,apng,mpegts,png_pipe,jpeg_pipe,webp_pipe"
INDEXED = ("mov", "matroska")  # containers in which a seek lands on a keyframe
SEEK_AFTER = 10.0  # seconds; up to here, decoding from the beginning costs little
MAX_PIXELS = 4096 * 2304  # of a frame; libav keeps up to 19 frames of a stream
MAX_FRAME_BYTES = 3 * MAX_PIXELS  # as stored: 4K with 10 bits and 4:2:0, or 8 bits and 4:4:4
THREADS = 2  # of a decoder: each may hold frames, and one for each processor of a large machine would hold gigabytes
LARGE = MAX_PIXELS // 2  # a decoder of larger frames has one thread
TIMEOUT = 900.0  # seconds that one file may take to decode
CLOCKWISE = {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}  # degrees, by the direction that x is displayed in


class Picture(NamedTuple):
    """A decoded frame, on display from `time` for `duration` seconds; time 0 is the stream's first frame.

    `matrix` (a, b, c, d) shows the stored pixel (x, y) at (a x + c y, b x + d y), y pointing down. `aspect` is the
    width of a shown pixel over its height.
    """

    time: float
    duration: float
    frame: av.VideoFrame
    matrix: tuple[int, int, int, int]
    aspect: float

    @property
    def rotation(self) -> int:
        """Clockwise turn from the stored to the shown frame: 0, 90, 180 or 270 degrees."""
        return CLOCKWISE[self.matrix[:2]]

    @property
    def shown_size(self) -> tuple[int, int]:
        """(height, width) in pixels as shown."""
        size = self.frame.height, self.frame.width
        return size if self.rotation in (0, 180) else size[::-1]

    def to_rgb(self, size: tuple[int, int] | None = None) -> np.ndarray:
        """Converts to RGB uint8 (H, W, 3) as shown: turned and mirrored, in the stored colours, without alpha.

        HDR and wide-gamut colours are those that a BT.709 display shows.

        size: (height, width) to scale to on the way, so that no RGB image of the frame's own size is in memory.
        """
        a, b, c, d = self.matrix
        height, width = (size if a else size[::-1]) if size else (None, None)
        image = frame_rgb(self.frame, width, height)
        if a == 0:
            image, a, d = image.transpose(1, 0, 2), c, b
        return np.ascontiguousarray(image[::d, ::a])


@contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens a file and its first video stream that is not a cover image.

    Raises VideoError if the file is missing, no regular file, unreadable, in no supported container, or without video,
    and where its frames are larger than `MAX_PIXELS` or `MAX_FRAME_BYTES`.
    """
    if path.is_dir():
        raise VideoError(f"{str(path)!r} is a folder, expected a video file: name one file in it")
    if not path.exists():
        raise VideoError(f"{str(path)!r} does not exist, expected a video file: check the path")
    if not path.is_file():
        raise VideoError(f"{str(path)!r} is a device or pipe, expected a regular video file: copy it to disk first")
    # libav decodes a frame or two already on opening, and takes `max_pixels` for that from the same options.
    limits = {"protocol_whitelist": "none", "format_whitelist": CONTAINERS, "max_pixels": str(MAX_PIXELS)}
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            if is_animated_webp(file.read(WEBP_HEADER)):
                raise VideoError(f"{str(path)!r} is an animated WebP, which cannot be read: convert it to mp4 or GIF")
            file.seek(0)
            container = stack.enter_context(av.open(_Nameless(file), "r", options=limits, metadata_errors="replace"))
        except (OSError, av.error.FFmpegError) as error:
            raise VideoError(
                f"{str(path)!r} cannot be read as a video ({error.strerror}), expected mp4, mov, mkv, webm, avi, ts, "
                "gif or apng: check that the file is whole, or convert it"
            ) from error
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            raise VideoError(f"{str(path)!r} has no video stream, expected a video: give a file with pictures in it")
        _bound_frames(path, streams[0])
        yield container, streams[0]


def decode(path: Path, start: float = 0.0) -> Iterator[Picture]:
    """Yields the frames of a video one at a time, in presentation order, the same on every run.

    Begins at the first frame or, for a `start` (seconds) above `SEEK_AFTER` in an indexed container, at a keyframe not
    after `start`. Damage ends the iteration: after the last frame before it, a VideoError says where it is. (Damage
    that the codec decodes without an error, such as a single changed bit, is not detected.) Raises VideoError also
    where `open_video` does, if there is no frame at all, and after `TIMEOUT` seconds.
    """
    with open_video(path) as (container, stream):
        shown = None
        deadline = time.monotonic() + TIMEOUT
        try:
            announced = None if is_whole_matroska(path) else _announced(container, stream)
            frames = _frames(container, stream, announced)
            first = next(frames, None)
            if first is None:
                raise _Damage("it holds no frame")
            frames = chain([first], frames)
            if start > SEEK_AFTER and container.format.name.startswith(INDEXED):
                frames = _seek(container, stream, (first.time, first.time + start), announced)
            for picture in frames:
                if picture.matrix[:2] not in CLOCKWISE or abs(picture.matrix[0]) != abs(picture.matrix[3]):
                    raise VideoError(f"{str(path)!r} is turned by no multiple of 90 degrees: encode it again upright")
                if picture.frame.colorspace not in MATRICES:
                    raise VideoError(
                        f"{str(path)!r} has colours of a kind that cannot be read (matrix {picture.frame.colorspace} "
                        "of ITU-T H.273, such as ICtCp of Dolby Vision): convert it to BT.709 first"
                    )
                if time.monotonic() > deadline:
                    raise VideoError(f"{str(path)!r} took over {TIMEOUT:.0f} s to decode: cut or shrink it first")
                picture = picture._replace(time=picture.time - first.time)
                if shown:
                    yield shown._replace(duration=picture.time - shown.time)
                shown = picture
            if shown:
                yield shown
        except (_Damage, av.error.FFmpegError) as error:
            if shown:
                yield shown
            end = shown.time + shown.duration if shown else 0.0
            reason = error.strerror if isinstance(error, av.error.FFmpegError) else error
            raise VideoError(
                f"{str(path)!r} is damaged or truncated after {end:.2f} s ({reason}): copy or encode it again"
            ) from error


def count_frames(path: Path, most: int) -> int:
    """How many frames a video has, up to `most`, by its packets, without decoding any; errors as of `open_video`."""
    with open_video(path) as (container, stream):
        return sum(packet.size > 0 for packet in islice(container.demux(stream), most))


def frame_rate(stream: av.VideoStream) -> Fraction:
    """Average frames per second of a stream as its container gives it, else as libav guesses it, else 25."""
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def duration(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Seconds that a stream lasts: by its header, else by the file's header, else by the times of all its packets."""
    if announced := _announced(container, stream):
        if container.format.name.startswith("matroska") and container.duration:  # a tag may be older than its file
            return min(announced, container.duration / av.time_base - _start(stream))
        return announced
    if container.duration:
        return container.duration / av.time_base
    times = ((packet.pts, packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None)
    first, lasting = next(times)
    start = last = first
    for time_stamp, length in times:
        start = min(start, time_stamp)
        if time_stamp > last:
            last, lasting = time_stamp, length
    return float((last + lasting - start) * _time_base(stream))


def _bound_frames(path: Path, stream: av.VideoStream) -> None:
    """Raises VideoError where the header announces too large frames; the decoder refuses those that it does not."""
    codec = cast("av.VideoCodecContext | None", stream.codec_context)  # PyAV's types do not say that it may lack
    if codec is None:
        raise VideoError(f"{str(path)!r} has a codec that is not known here, or is damaged: encode it again, as H.264")
    size = codec.width * codec.height
    stored = size * (codec.format.padded_bits_per_pixel if codec.format else 8) // 8
    if size > MAX_PIXELS or stored > MAX_FRAME_BYTES or not size:
        given = f"of {codec.width}x{codec.height} pixels ({codec.pix_fmt})" if size else "that are too large or damaged"
        raise VideoError(
            f"{str(path)!r} has frames {given}, expected at most {MAX_PIXELS} pixels and "
            f"{MAX_FRAME_BYTES // 2**20} MiB each: scale it down first"
        )
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    codec.thread_count = 1 if size > LARGE else THREADS


class _Damage(Exception):
    """The stream cannot be trusted from here on."""


class _Nameless:
    """A file without its name: libav then detects its format by content alone and cannot derive other paths from it."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _announced(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Seconds that the header gives for this very stream, or None in containers that do not give it."""
    if container.format.name == "avi":  # its stream.duration is what the file holds, not what the header says
        return float(stream.frames / frame_rate(stream)) or None
    if container.format.name.startswith("mov") and stream.duration:
        return float(stream.duration * _time_base(stream))
    hours, _, minutes_seconds = stream.metadata.get("DURATION", "").partition(":")  # Matroska: "00:00:04.000000000"
    minutes, _, seconds = minutes_seconds.partition(":")
    if hours.isdigit() and minutes.isdigit() and seconds.replace(".", "", 1).isdigit():
        end = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
        return end - _start(stream) if end > _start(stream) else end  # libav counts from 0, mkvmerge from the start
    return None


def _start(stream: av.VideoStream) -> float:
    """The time of a stream's first frame in its container, seconds."""
    return float((stream.start_time or 0) * _time_base(stream))


def _time_base(stream: av.VideoStream) -> Fraction:
    """Seconds that a unit of a stream's times lasts."""
    return cast(Fraction, stream.time_base)  # libav knows it of every stream that it opens


def _seek(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    times: tuple[float, float],
    announced: float | None,
) -> Iterator[Picture]:
    """Yields frames (as `_frames`) from a keyframe not after the start, or from the first if the index is wrong.

    times: of the first frame and of the start, in container time.
    """
    first, start = times
    container.seek(int(start / _time_base(stream)), stream=stream)
    frames = _frames(container, stream, announced)
    landed = next(frames, None)
    if landed is not None and landed.time <= start:
        return chain([landed], frames)
    container.seek(int(first / _time_base(stream)), stream=stream)
    return _frames(container, stream, announced)


def _frames(
    container: av.container.InputContainer, stream: av.VideoStream, announced: float | None
) -> Iterator[Picture]:
    """Yields frames from the container's position on, in container time; raises _Damage at the first doubtful one.

    announced: the seconds that the stream must have, None where that is not known.
    """
    kind = container.format.name
    # AVI stores no presentation times: libav's guesses are out of order with B-frames, its decoding times are not.
    clock = "dts" if kind == "avi" else "pts"
    base, period = float(_time_base(stream)), float(1 / frame_rate(stream))
    aspect = float(stream.sample_aspect_ratio or 1)
    start, end = -float("inf"), _start(stream)
    whole = float("inf") if announced is None else end + announced - 1.5 * period  # a stream that ends later is whole
    for packet in container.demux(stream):
        if packet.is_corrupt or (kind == "gif" and _is_cut_gif(packet, container.size)):
            raise _Damage("a packet is cut short")
        frames = packet.decode()
        # The decoder keeps frames back until the stream ends. If it ended too early, some between them are missing.
        last = getattr(frames[-1], clock) if frames and packet.size == 0 else None
        incomplete = packet.size == 0 and (end + len(frames) * period if last is None else last * base + period) < whole
        for frame in frames:
            if frame.is_corrupt:
                raise _Damage("a frame is corrupt")
            stamp = getattr(frame, clock)
            ahead = stamp is not None and stamp * base > start
            if incomplete and (stamp is None or stamp * base > end + period / 2):
                raise _Damage("frames are missing")
            start = stamp * base if ahead else end
            end = start + (frame.duration * base if frame.duration else period)
            tag_matrix(frame, stream.codec_context.name)
            matrix = _display_matrix(frame)
            yield Picture(start, end - start, frame, matrix, aspect if matrix[0] else 1 / aspect)
    if announced is not None and end < whole:
        raise _Damage(f"its header announces {announced:.2f} s")


def _is_cut_gif(packet: av.Packet, file_size: int) -> bool:
    """Whether a GIF's last packet lacks the end of its image data (a zero) and of the file (a semicolon)."""
    is_last = packet.size > 0 and packet.pos is not None and packet.pos + packet.size == file_size
    return is_last and not bytes(packet).rstrip(b"\0").endswith(b"\0;")


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    # frame.side_data would keep its container, which refers to the frame: a cycle, so frames would stay in memory.
    data = SideDataContainer(frame).get(SideDataType.DISPLAYMATRIX)  # type: ignore[call-arg]  # PyAV's types lack it
    if data is None:
        return 1, 0, 0, 1
    a, b, c, d = np.rint(np.frombuffer(data, dtype=np.int32)[[0, 1, 3, 4]] / 65536).astype(int).tolist()
    return a, b, c, d
