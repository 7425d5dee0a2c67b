"""What the bytes of a video file tell that libav does not."""

from pathlib import Path

WEBP_HEADER = 21
"""Bytes that tell whether a WebP is animated."""


def is_whole_matroska(path: Path) -> bool:
    """Whether a Matroska file is as long as its header says; then what a tag says of its duration proves no damage."""
    with path.open("rb") as file:
        data = file.read(4096)
        length = file.seek(0, 2)
    if not data.startswith(b"\x1a\x45\xdf\xa3"):
        return False
    size, segment = _ebml_size(data, 4)
    segment += size
    if data[segment : segment + 4] != b"\x18\x53\x80\x67":
        return False
    size, content = _ebml_size(data, segment + 4)
    return content + size <= length  # a live recording gives the largest size


def _ebml_size(data: bytes, at: int) -> tuple[int, int]:
    """The size that an element of a Matroska file gives at this place, and where its content begins."""
    count = 9 - data[at : at + 1].ljust(1, b"\1")[0].bit_length()
    size = int.from_bytes(data[at : at + count]) & ((1 << 7 * count) - 1)
    return size, at + count


def is_animated_webp(data: bytes) -> bool:
    """Whether a file that begins with this is a WebP of several frames, of which libav reads none."""
    whole = len(data) >= WEBP_HEADER and data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X"
    return whole and bool(data[WEBP_HEADER - 1] & 2)
