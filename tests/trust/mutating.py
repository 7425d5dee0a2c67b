"""Videos of every container, changed at random by a seed, and what reading them gives.

As a program (`mutating.py FOLDER COUNT`): tries `COUNT` of them and prints a JSON object.
"""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from effivmt.errors import VideoError
from effivmt.media.video import probe, read_clip, read_frames

CODES = {
    "mp4": ("libx264", "yuv420p"),
    "mov": ("mpeg4", "yuv420p"),
    "mkv": ("libx264", "yuv420p"),
    "webm": ("libvpx-vp9", "yuv420p"),
    "avi": ("mpeg4", "yuv420p"),
    "gif": ("gif", "rgb8"),
    "ts": ("mpeg2video", "yuv420p"),
}
"""Container -> codec and pixel format."""
SIZES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\x10\0\x09\0")
"""What a field for a size or a count may be set to."""


def originals(folder: Path) -> dict[str, bytes]:
    """A small video in each container."""
    frames = np.random.default_rng(0).integers(0, 255, (24, 8, 12, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    found = {}
    for kind, (codec, pixels) in CODES.items():
        with av.open(str(folder / f"whole.{kind}"), "w") as container:
            stream = container.add_stream(codec, rate=8)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
            stream.codec_context.thread_count = 1
            for image in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixels)))
            container.mux(stream.encode(None))
        found[kind] = (folder / f"whole.{kind}").read_bytes()
    return found


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """The bytes of a video, changed in one to three ways."""

    def some() -> slice:
        start = chance.randrange(len(data))
        return slice(start, start + chance.choice((1, 8, 100, 1000)))

    def flipped() -> bytes:
        changed = bytearray(data)
        for _ in range(chance.choice((1, 4, 64))):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)

    def resized() -> bytes:
        place = chance.randrange(max(1, min(len(data), chance.choice((200, len(data)))) - 4))
        return data[:place] + chance.choice(SIZES) + data[place + 4 :]

    def zeroed() -> bytes:
        gap = some()
        return data[: gap.start] + bytes(len(data[gap])) + data[gap.stop :]

    def dropped() -> bytes:
        gap = some()
        return data[: gap.start] + data[gap.stop :]

    def repeated() -> bytes:
        part = some()
        return data[: part.stop] + data[part] * chance.choice((1, 5)) + data[part.stop :]

    def spliced() -> bytes:
        other, place = chance.choice(others), chance.randrange(len(data))
        return data[:place] + other[chance.randrange(len(other)) :]

    ways: list[Callable[[], bytes]] = [flipped, flipped, resized, resized, zeroed, dropped, repeated, spliced]
    ways.append(lambda: data[: chance.randrange(len(data))])
    for _ in range(chance.choice((1, 1, 3))):
        data = chance.choice(ways)() or b"\0"
    return data


def attempt(path: Path) -> list[str]:
    """How each way to read a video ends: "read", or "refused" with one line; whatever else it raises goes on."""
    ends = []
    readers: list[Callable[[], object]] = [
        lambda: probe(path),
        lambda: read_clip(path, fps=8, num_frames=9, height=32, width=32),
        lambda: read_frames(path, max_bytes=2**22),
    ]
    for read in readers:
        try:
            found = read()
        except VideoError as error:
            assert "\n" not in str(error), str(error)
            ends.append("refused")
        else:
            if isinstance(found, np.ndarray):
                assert found.shape[1:] == (32, 32, 3) and len(found) in (5, 9)
            ends.append("read")
    return ends


def attempt_all(folder: Path, count: int) -> dict[str, float]:
    """Tries `count` mutants of all containers in turn; the counts, and the seconds of the slowest."""
    chance, sources = random.Random(19), originals(folder)
    ends: Counter[str] = Counter()
    slowest = 0.0
    for number in range(count):
        kind = list(sources)[number % len(sources)]
        path = folder / f"mutant.{kind}"
        path.write_bytes(mutated(sources[kind], list(sources.values()), chance))
        began = time.monotonic()
        ends.update(attempt(path))
        slowest = max(slowest, time.monotonic() - began)
    return {"tries": count, "slowest": slowest, **ends}


if __name__ == "__main__":
    print(json.dumps(attempt_all(Path(sys.argv[1]), int(sys.argv[2]))))
