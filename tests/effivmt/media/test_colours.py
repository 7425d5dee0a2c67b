"""Colours of known patches: matrices, ranges, HDR and wide gamut, all as a BT.709 display shows them."""

import subprocess
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from filming import failure

from effivmt.media import video

BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)  # weights of red and blue
CODES = {BT601: 6, BT709: 1, BT2020: 9}
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
TO_P3 = np.array([[0.8225, 0.1774, 0.0], [0.0332, 0.9669, 0.0], [0.0171, 0.0724, 0.9108]])
PATCHES = ((255, 0, 0), (0, 0, 128), (128, 128, 128), (40, 200, 90))


def film(
    path: Path,
    signal: tuple[float, ...],
    *,
    weights: tuple[float, float] = BT709,
    full: bool = False,
    bits: int = 8,
    tags: dict[str, int] | None = None,
    size: tuple[int, int] = (64, 64),
) -> Path:
    """Writes six frames of one colour, R'G'B' from 0 to 1; tags: trc, primaries, colorspace (default: of weights)."""
    red, blue = weights
    luma = red * signal[0] + blue * signal[2] + (1 - red - blue) * signal[1]
    chroma = (signal[2] - luma) / 2 / (1 - blue), (signal[0] - luma) / 2 / (1 - red)
    top = 2**bits - 1
    step = 2 ** (bits - 8)
    levels = [top * luma, *(top * c + 128 * step for c in chroma)]
    if not full:
        levels = [step * (16 + 219 * luma), *(step * (128 + 224 * c) for c in chroma)]
    y, u, v = (round(min(max(level, 0), top)) for level in levels)
    given = {"colorspace": CODES[weights], "trc": 1, "primaries": 1} | (tags or {})
    height, width = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p" if bits == 8 else "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_trc = given["colorspace"], given["trc"]
        context.color_primaries, context.color_range = given["primaries"], 2 if full else 1
        planes = np.concatenate(
            [np.full((height, width), y), np.full((height // 4, width), u), np.full((height // 4, width), v)]
        )
        frame = av.VideoFrame.from_ndarray(planes.astype(np.uint8 if bits == 8 else np.uint16), stream.pix_fmt)
        frame.color_range, frame.colorspace = 2 if full else 1, given["colorspace"]
        for number in range(6):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shown(path: Path) -> np.ndarray:
    """The colour that a clip of the video has, which must be the same everywhere."""
    frames = video.read_clip(path, fps=10, num_frames=5, height=32, width=32)
    assert frames.std(axis=(0, 1, 2)).max() < 1
    return frames.mean(axis=(0, 1, 2))


def light(colour: tuple[int, ...]) -> np.ndarray:
    """Linear light of a colour on a display of BT.1886, white 1."""
    return (np.array(colour) / 255) ** 2.4


def pq(nits: np.ndarray) -> np.ndarray:
    power = (np.maximum(nits, 0) / 10_000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def hlg(nits: np.ndarray) -> np.ndarray:
    scene = (np.maximum(nits, 0) / 1000) ** (1 / 1.2)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("weights", [BT601, BT709])
def test_matrix_and_range(tmp_path, weights, full):
    for patch in PATCHES:
        path = film(tmp_path / "a.mp4", tuple(np.array(patch) / 255), weights=weights, full=full)
        assert np.abs(shown(path) - patch).max() <= 3, patch


@pytest.mark.parametrize(("size", "weights"), [((64, 64), BT601), ((720, 1280), BT709), ((1280, 720), BT709)])
def test_without_a_matrix_the_size_decides(tmp_path, size, weights):
    path = film(tmp_path / "a.mp4", (200 / 255, 0.2, 0.1), weights=weights, tags={"colorspace": 2}, size=size)
    assert np.abs(shown(path) - (200, 51, 26)).max() <= 3


@pytest.mark.parametrize(("primaries", "to_wide", "weights"), [(9, TO_2020, BT2020), (12, TO_P3, BT709)])
def test_wide_gamut(tmp_path, primaries, to_wide, weights):
    for patch in PATCHES:
        signal = np.maximum(to_wide @ light(patch), 0) ** (1 / 2.4)
        path = film(tmp_path / "a.mp4", tuple(signal), weights=weights, bits=10, tags={"primaries": primaries})
        assert np.abs(shown(path) - patch).max() <= 8, patch


@pytest.mark.parametrize(("transfer", "encode"), [(16, pq), (18, hlg)])
class TestHdr:
    def colour_of(self, folder: Path, transfer: int, signal: np.ndarray) -> np.ndarray:
        tags = {"trc": transfer, "primaries": 9}
        return shown(film(folder / "a.mp4", tuple(signal), weights=BT2020, bits=10, tags=tags))

    def test_keeps_what_an_ordinary_display_shows(self, tmp_path, transfer, encode):
        for patch in PATCHES:
            got = self.colour_of(tmp_path, transfer, encode(203 * TO_2020 @ light(patch)))
            assert np.abs(got - patch).max() <= 12, patch

    def test_has_white_near_the_top_and_brighter_highlights(self, tmp_path, transfer, encode):
        levels = [self.colour_of(tmp_path, transfer, encode(np.full(3, nits))).mean() for nits in (100, 203, 500, 1000)]
        assert levels[0] == pytest.approx(255 * (100 / 203) ** (1 / 2.4), abs=2)
        assert 240 <= levels[1] < levels[2] < levels[3] and levels[3] >= 254

    def test_is_what_zscale_shows_below_the_highlights(self, tmp_path, transfer, encode):
        program = imageio_ffmpeg.get_ffmpeg_exe()
        if b" zscale " not in subprocess.run([program, "-filters"], capture_output=True, check=True).stdout:
            pytest.skip("this ffmpeg has no zscale")
        got = self.colour_of(tmp_path, transfer, encode(203 * TO_2020 @ light((180, 90, 140))))
        steps = "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,tonemap=clip:desat=0"
        steps += ",zscale=t=bt709:m=bt709:r=tv,format=yuv444p,format=rgb24"
        command = [program, "-v", "error", "-i", tmp_path / "a.mp4", "-vf", steps, "-frames:v", "1"]
        raw = subprocess.run([*command, "-f", "rawvideo", "-"], capture_output=True, check=True).stdout
        assert np.abs(got - np.frombuffer(raw, np.uint8).reshape(-1, 3).mean(0)).max() <= 4


def test_a_matrix_that_cannot_be_read_is_told(tmp_path):
    path = film(tmp_path / "a.mp4", (0.5, 0.5, 0.5), tags={"colorspace": 14})
    assert "matrix 14 of ITU-T H.273, such as ICtCp" in failure(video.read_frames, path)
