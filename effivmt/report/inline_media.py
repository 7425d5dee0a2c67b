"""Videos and images that a page embeds, byte for byte, as data URIs or as base64 text."""

from dataclasses import dataclass
from pathlib import Path

from effivmt.errors import VideoError
from effivmt.media.video import probe
from effivmt.report.templating import base64_text
from effivmt.store.digests import sha256_bytes

MEDIA_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}
CODECS = ("h264", "vp8", "vp9", "av1")


@dataclass(frozen=True)
class InlineMedia:
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
class InlineFile:
    """A file that a page embeds as base64, in an element of this `id`."""

    id: str
    media: InlineMedia

    @property
    def text(self) -> str:
        """Its content as base64."""
        return base64_text(self.media.content)


class InlineFiles:
    """The files that a page embeds, by path; equal files are embedded once. `size`: bytes of all of them as base64."""

    def __init__(self) -> None:
        self.files: dict[Path, InlineFile] = {}
        self.size = 0
        self._known: dict[str, InlineFile] = {}

    def add(self, path: Path) -> None:
        """Takes a video or a PNG image; VideoError where it cannot be shown."""
        media = inline_image(path) if path.suffix == ".png" else inline_video(path)
        digest = sha256_bytes(media.content)
        if digest not in self._known:
            self._known[digest] = InlineFile(f"file-{len(self._known)}", media)
            self.size += 4 * len(media.content) // 3
        self.files[path] = self._known[digest]


def inline_video(path: Path) -> InlineMedia:
    """Reads a video; VideoError where it is missing or of a kind that no browser plays."""
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
    return InlineMedia(MEDIA_TYPES[path.suffix.lower()], content, width, height, tiny=longest <= 128)


def inline_image(path: Path) -> InlineMedia:
    """Reads a PNG image; VideoError where it is missing or is not a PNG."""
    content = _content(path, "image")
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 24:
        raise VideoError(f"report image {str(path)!r} is not a PNG file, expected a PNG; draw the figure again")
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    return InlineMedia("image/png", content, width, height)


def _content(path: Path, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise VideoError(
            f"report {kind} {str(path)!r} cannot be read ({error.strerror}), expected a file; make it again"
        ) from error
