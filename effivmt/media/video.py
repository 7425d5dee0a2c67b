"""Reading and writing of video and image files as arrays, and what a video's headers say.

Frames are RGB uint8 (T, H, W, 3) as a player shows them: turned by the file's rotation, in its own colour matrix. Alpha
is dropped: the colours are those stored under it. A file that cannot be used raises VideoError, in one line.
"""

import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from effivmt.errors import VideoError
from effivmt.media import ffmpeg
from effivmt.media.encoding import encode_h264
from effivmt.untrusted import open_regular

SLACK = 0.001  # seconds; Matroska rounds its times to milliseconds, QuickTime to 1/600 s
SHORTEST = 5
"""The fewest frames of a clip: with fewer, Wan's latents have no motion."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
MAX_IMAGES = 2000
MAX_IMAGE_PIXELS = 2**25  # 8192 x 4096; decoding takes up to 12 bytes a pixel


@dataclass(frozen=True)
class VideoInfo:
    """Facts of a video file: `width` and `height` as shown (pixels), average `fps`, `duration` in seconds.

    `num_frames` is None where the container does not say. `rotation` is the clockwise turn from the stored to the shown
    frame (0, 90, 180 or 270 degrees), already counted in width and height. `codec` is libav's name, such as "h264".
    `aspect` is the width of a shown pixel over its height.
    """

    path: Path
    width: int
    height: int
    fps: float
    duration: float
    num_frames: int | None
    rotation: int
    codec: str
    aspect: float


def probe(path: Path) -> VideoInfo:
    """Reads the facts of a video file from its headers and its first frame, which must be decodable."""
    first = next(ffmpeg.decode(path))
    height, width = first.shown_size
    with ffmpeg.open_video(path) as (container, stream):
        return VideoInfo(
            path=path,
            width=width,
            height=height,
            fps=float(ffmpeg.frame_rate(stream)),
            duration=ffmpeg.duration(container, stream),
            num_frames=stream.frames or None,
            rotation=first.rotation,
            codec=stream.codec_context.name,
            aspect=first.aspect,
        )


def read_clip(
    path: Path, *, fps: float, num_frames: int, height: int, width: int, start: float = 0.0, end: float | None = None
) -> np.ndarray:
    """Samples `num_frames` frames at `fps` from `start` (seconds), scaled to cover (height, width) and centre-cropped.

    uint8 (T, height, width, 3). T is `num_frames`, or the largest 4k+1 below it that lies before `end` (seconds) and
    before the video's own end. Frame i is the one on display at start + i / fps, so that variable frame rates keep
    their timing; time 0 is the first frame. Pixels that are not square are stretched to their shown shape. Frames are
    decoded one by one, no more than needed, so damage after the clip does no harm. Raises VideoError where fewer than
    `SHORTEST` frames are there, and where damage ends the video too early.
    """
    name = f"{str(path)!r}"
    if not (isfinite(start) and start >= 0):
        raise VideoError(f"start is {start} s for {name}, expected 0 or more: correct the trim")
    if end is not None and not end > start:
        raise VideoError(f"end is {end} s for {name}, expected more than the start of {start} s: correct the trim")
    step = 1 / Fraction(fps).limit_denominator(100_000)
    targets = [start + float(i * step) for i in range(num_frames)]
    if end is not None:
        targets = [target for target in targets if target <= end - SLACK]
    clip = np.empty((len(targets), height, width, 3), np.uint8)
    filled, stop, pictures = 0, 0.0, 0
    try:
        for picture in ffmpeg.decode(path, start):
            stop, pictures = picture.time + picture.duration, pictures + 1
            on_display = sum(target < stop - SLACK for target in targets[filled:])
            if on_display:
                clip[filled : filled + on_display] = _fit(picture.to_rgb(), height, width, picture.aspect)
                filled += on_display
            if filled == len(targets):
                break
    except VideoError as error:
        if stop == 0:
            raise
        raise VideoError(
            f"{name} has {filled} frames at {fps:g} fps from {start:g} s on before its damage, expected "
            f"{len(targets)}; {error}"
        ) from error
    if filled == num_frames:
        return clip
    if filled < SHORTEST:
        if pictures == 1:
            raise VideoError(
                f"{name} is too short: it has a single frame, as a still image has; expected a video of at least "
                f"{SHORTEST} frames at {fps:g} fps, {SHORTEST / fps:.2f} s"
            )
        until = stop if end is None else min(stop, end)
        raise VideoError(
            f"{name} is too short: it has {stop:.2f} s, {max(0.0, until - start):.2f} s of them in the trim from "
            f"{start:g} s on, expected at least {SHORTEST} frames at {fps:g} fps, {SHORTEST / fps:.2f} s: "
            "give a longer clip, or a higher frame rate"
        )
    return clip[: filled - (filled - 1) % 4]


def read_frames(path: Path, *, max_frames: int = 2000, max_bytes: int | None = None) -> tuple[np.ndarray, float]:
    """Reads a whole video, without stretching pixels: uint8 (T, H, W, 3), and its average fps.

    All frames are in memory at once: at their own size, or smaller where they would have more than `max_bytes`. Raises
    VideoError if there are more than `max_frames`, or any damage.
    """
    frames: list[np.ndarray] = []
    expected = 0 if max_bytes is None else ffmpeg.count_frames(path, max_frames)
    size: tuple[int, int] | None = None
    for picture in ffmpeg.decode(path):
        if len(frames) == max_frames:
            raise VideoError(f"{str(path)!r} has more than {max_frames} frames, expected at most that: cut it first")
        if max_bytes is not None and not frames:
            size = _size_within(picture.shown_size, max_bytes // max(1, expected))
        image = picture.to_rgb(size)
        frames.append(image if not frames else _fit(image, *frames[0].shape[:2]))
        if max_bytes is not None and len(frames) > expected and len(frames) * image.nbytes > max_bytes:
            raise VideoError(f"{str(path)!r} has more frames than its container counts: encode it again")
    with ffmpeg.open_video(path) as (_, stream):
        return np.stack(frames), float(ffmpeg.frame_rate(stream))


def read_images(folder: Path, *, height: int, width: int) -> np.ndarray:
    """Reads the png, jpg, jpeg and webp files of a folder in order of name: uint8 (T, height, width, 3).

    Each is turned by its EXIF orientation, scaled to cover (height, width) and centre-cropped; alpha is dropped, and of
    an animation the first frame counts. Raises VideoError if the folder has no image, or one that cannot be decoded.
    """
    if not folder.is_dir():
        raise VideoError(f"{str(folder)!r} is no folder, expected a folder of images: check the path")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    if not paths:
        raise VideoError(f"{str(folder)!r} holds no image, expected {', '.join(IMAGE_SUFFIXES)} files: add one")
    if len(paths) > MAX_IMAGES:
        raise VideoError(f"{str(folder)!r} holds {len(paths)} images, expected at most {MAX_IMAGES}: take some out")
    return np.stack([_cover(_read_image(path), height, width) for path in paths])


def read_image(path: Path, *, height: int, width: int) -> np.ndarray:
    """Reads a png, jpg or webp file as `read_images` reads each of a folder: uint8 (height, width, 3)."""
    return _cover(_read_image(path), height, width).copy()  # Pillow's own memory cannot be written


def write_video(path: Path, frames: np.ndarray, fps: float) -> None:
    """Writes uint8 (T, H, W, 3) as an H.264 mp4 (yuv420p), whole or not at all; the same frames give the same bytes.

    An odd height or width grows by one row or column, a copy of the last. Raises VideoError if it cannot be written.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise VideoError(f"frames for {str(path)!r} are {frames.dtype} {frames.shape}, expected uint8 (T, H, W, 3)")
    odd = [(0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)]
    with _replacing(path) as temporary:
        encode_h264(temporary, np.pad(frames, odd, mode="edge"), fps)


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes RGB uint8 (H, W, 3) as a PNG, whole or not at all; raises VideoError if it cannot be written."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise VideoError(f"the image for {str(path)!r} is {image.dtype} {image.shape}, expected uint8 (H, W, 3)")
    with _replacing(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path` to write to, and renames it to `path` if the block succeeds."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise VideoError(
            f"cannot write {str(path)!r} ({error.strerror}): check its folder and the free space"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _size_within(size: tuple[int, int], limit: int) -> tuple[int, int] | None:
    """(height, width) of an RGB frame of at most `limit` bytes; None where a frame of that size has no more."""
    height, width = size
    scale = (limit / (3 * height * width)) ** 0.5
    return None if scale >= 1 else (max(1, int(height * scale)), max(1, int(width * scale)))


def _fit(image: np.ndarray, height: int, width: int, aspect: float = 1.0) -> np.ndarray:
    """Scales (H, W, 3), of pixels `aspect` times as wide as high, to cover (height, width); crops centrally."""
    return _cover(Image.fromarray(image), height, width, aspect)


def _cover(image: Image.Image, height: int, width: int, aspect: float = 1.0) -> np.ndarray:
    """`_fit` of an RGB image."""
    own_width, own_height = image.size
    left = max(0.0, own_width - own_height * width / height / aspect) / 2
    top = max(0.0, own_height - own_width * height / width * aspect) / 2
    box = (left, top, own_width - left, own_height - top)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box))


def _read_image(path: Path) -> Image.Image:
    """An image file as RGB, upright; its pixels are counted before any is decoded."""
    try:
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound here is lower
            image = Image.open(file, formats=IMAGE_FORMATS)
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels, expected at most {MAX_IMAGE_PIXELS}")
            image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "I;16":  # grey of 16 bits, which Pillow would clip to 8 instead of scaling
            return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
        return image if image.mode == "RGB" else image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VideoError(f"{str(path)!r} cannot be decoded ({error}), expected an image: replace it") from error
