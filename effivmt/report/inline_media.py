"""Videos and images as a page embeds them, byte for byte."""

from dataclasses import dataclass
from pathlib import Path

from effivmt.errors import VideoError
from effivmt.media.video import probe
from effivmt.report.templating import base64_text
from effivmt.store.digests import sha256_bytes

MEDIA_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}
CODECS = ("h264", "vp8", "vp9", "av1")


@dataclass(frozen=True)
class Embedded:
    """A file's content, with the size in CSS pixels at which a page shows it."""

    media_type: str
    content: bytes
    width: int
    height: int
    tiny: bool = False

    @property
    def uri(self) -> str:
        """The file as a data URI."""
        return f"data:{self.media_type};base64,{base64_text(self.content)}"


@dataclass(frozen=True)
class File:
    """A file that a page holds, under `id`."""

    id: str
    embedded: Embedded

    @property
    def text(self) -> str:
        """Its content as base64."""
        return base64_text(self.embedded.content)


class Held:
    """The files that a page holds, by path, equal ones once; `size`: bytes of them as base64."""

    def __init__(self) -> None:
        self.files: dict[Path, File] = {}
        self.size = 0
        self._known: dict[str, File] = {}

    def add(self, path: Path) -> None:
        """Takes a video or a PNG image; VideoError where it cannot be shown."""
        embedded = embed_image(path) if path.suffix == ".png" else embed_video(path)
        digest = sha256_bytes(embedded.content)
        if digest not in self._known:
            self._known[digest] = File(f"file-{len(self._known)}", embedded)
            self.size += 4 * len(embedded.content) // 3
        self.files[path] = self._known[digest]


def embed_video(path: Path) -> Embedded:
    """A video; VideoError where it is missing or of a kind that no browser plays."""
    if path.suffix.lower() not in MEDIA_TYPES:
        raise VideoError(f"report video {str(path)!r} ends in {path.suffix!r}, expected .mp4 or .webm; convert it")
    content = _content(path, "video")
    info = probe(path)
    if info.codec not in CODECS:
        raise VideoError(
            f"report video {str(path)!r} is coded as {info.codec}, expected {', '.join(CODECS)}; encode it as H.264"
        )
    longest = max(info.width, info.height)
    scale = 256 / longest if longest <= 256 else min(1.0, 400 / longest)
    width, height = round(info.width * scale), round(info.height * scale)
    return Embedded(MEDIA_TYPES[path.suffix.lower()], content, width, height, tiny=longest <= 128)


def embed_image(path: Path) -> Embedded:
    """A PNG image; VideoError where it is missing or none."""
    content = _content(path, "image")
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 24:
        raise VideoError(f"report image {str(path)!r} is not a PNG file, expected a PNG; draw the figure again")
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    return Embedded("image/png", content, width, height)


def _content(path: Path, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise VideoError(
            f"report {kind} {str(path)!r} cannot be read ({error.strerror}), expected a file; make it again"
        ) from error
