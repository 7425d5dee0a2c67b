"""Video and image files: every claim of effivmt.video, on small real files made here with PyAV and ffmpeg."""

import os
import socket
import subprocess
import tracemalloc
from bisect import bisect_left
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from effivmt import ffmpeg, video
from effivmt.errors import VideoError

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
    program = ffmpeg.imageio_ffmpeg.get_ffmpeg_exe()
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


@pytest.fixture
def scene() -> np.ndarray:
    """Six smooth and colourful frames in motion."""
    noise = np.random.default_rng(0).integers(0, 255, (4, 7, 3), dtype=np.uint8)
    still = np.asarray(Image.fromarray(noise).resize((112, 64), Image.Resampling.BICUBIC))
    return np.stack([still[:, 2 * i : 2 * i + 96] for i in range(6)])


@pytest.fixture
def mirror(tmp_path) -> np.ndarray:
    """One frame with a different colour in each corner, as 8 frames of `mirror.mp4` in tmp_path."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24], image[:16, 24:], image[16:, :24], image[16:, 24:] = RED, GREEN, BLUE, WHITE
    encode(tmp_path / "mirror.mp4", np.broadcast_to(image, (8, 32, 48, 3)), crf="1")
    return image


class TestWriting:
    @pytest.mark.parametrize("fps", [8, 30000 / 1001])
    def test_round_trip_keeps_pixels_size_and_rate(self, tmp_path, scene, fps):
        video.write_video(tmp_path / "a.mp4", scene, fps)
        frames, rate = video.read_frames(tmp_path / "a.mp4")
        assert frames.shape == scene.shape and frames.dtype == np.uint8
        assert psnr(frames, scene) > 38
        assert rate == pytest.approx(fps)
        info = video.probe(tmp_path / "a.mp4")
        assert (info.width, info.height, info.num_frames, info.codec, info.rotation) == (96, 64, 6, "h264", 0)
        assert info.duration == pytest.approx(6 / fps, abs=0.001) and info.fps == pytest.approx(fps)

    def test_pure_colours_survive(self, tmp_path):
        colours = np.array([RED, GREEN, BLUE, WHITE, (0, 0, 0), (200, 80, 40)], np.uint8)
        video.write_video(tmp_path / "a.mp4", np.broadcast_to(colours[:, None, None], (6, 32, 32, 3)), 8)
        frames, _ = video.read_frames(tmp_path / "a.mp4")
        assert np.abs(frames - colours[:, None, None].astype(int)).max() <= 3

    def test_same_frames_give_same_bytes(self, tmp_path, scene):
        for name in ("a.mp4", "b.mp4"):
            video.write_video(tmp_path / name, scene, 8)
        data = (tmp_path / "a.mp4").read_bytes()
        assert data == (tmp_path / "b.mp4").read_bytes()
        assert data.index(b"moov") < data.index(b"mdat") and b"Lavf" not in data
        with av.open(str(tmp_path / "a.mp4")) as container:
            context = container.streams.video[0].codec_context
            tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
            assert (*tags, context.pix_fmt) == (1, 1, 1, 1, "yuv420p")  # BT.709, limited range

    @pytest.mark.parametrize("height, width", [(63, 96), (64, 95), (63, 95), (1, 1)])
    def test_odd_sizes_grow_by_a_copied_edge(self, tmp_path, scene, height, width):
        odd = scene[:, :height, :width]
        video.write_video(tmp_path / "a.mp4", odd, 8)
        frames, _ = video.read_frames(tmp_path / "a.mp4")
        assert frames.shape == (6, height + height % 2, width + width % 2, 3)
        if height > 1:
            assert psnr(frames[:, :height, :width], odd) > 38
            assert psnr(frames[:, -1:], frames[:, -2:-1]) > 25

    def test_a_failed_write_leaves_nothing_and_spares_the_old_file(self, tmp_path, scene):
        (tmp_path / "folder.mp4").mkdir()
        failure(video.write_video, tmp_path / "folder.mp4", scene, 8)
        assert "missing" in failure(video.write_video, tmp_path / "missing" / "a.mp4", scene, 8)
        failure(video.write_image, tmp_path / "missing" / "a.png", scene[0])
        (tmp_path / "a.mp4").write_bytes(b"old")
        assert "float64" in failure(video.write_video, tmp_path / "a.mp4", scene / 255, 8)
        assert "(0, 64, 96, 3)" in failure(video.write_video, tmp_path / "a.mp4", scene[:0], 8)
        assert "libx264" in failure(video.write_video, tmp_path / "a.mp4", np.zeros((1, 2, 20000, 3), np.uint8), 8)
        assert (tmp_path / "a.mp4").read_bytes() == b"old"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "folder.mp4"]

    def test_image_round_trip_is_exact(self, tmp_path, scene):
        video.write_image(tmp_path / "a.png", scene[0])
        assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), scene[0])
        assert np.array_equal(video.read_images(tmp_path, height=64, width=96)[0], scene[0])
        assert "(64, 96)" in failure(video.write_image, tmp_path / "b.png", scene[0, ..., 0])
        assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


class TestDecoding:
    @pytest.mark.parametrize("kind", CODES)
    def test_every_container_gives_every_frame_in_order(self, tmp_path, kind):
        path = encode(tmp_path / f"a.{kind}", counting(30))
        frames, fps = video.read_frames(path)
        assert (numbers(frames), fps) == (list(range(30)), 10)
        assert numbers(clip(path, 30)) == list(range(30))
        info = video.probe(path)
        assert info.duration == pytest.approx(3, abs=0.01) and info.fps == 10
        assert np.array_equal(frames, video.read_frames(path)[0])

    @pytest.mark.parametrize(
        "option, clockwise, turned",
        [
            (("-display_rotation", "-90"), 90, lambda image: np.rot90(image, -1)),
            (("-display_rotation", "180"), 180, lambda image: np.rot90(image, 2)),
            (("-display_rotation", "90"), 270, lambda image: np.rot90(image)),
            (("-display_vflip",), 0, lambda image: image[::-1]),
        ],
    )
    def test_display_matrix_is_applied(self, tmp_path, mirror, option, clockwise, turned):
        run_ffmpeg(*option, "-i", tmp_path / "mirror.mp4", "-c", "copy", tmp_path / "turned.mp4")
        expected = turned(mirror)
        frames, _ = video.read_frames(tmp_path / "turned.mp4")
        info = video.probe(tmp_path / "turned.mp4")
        assert frames.shape[1:] == expected.shape and (info.height, info.width) == expected.shape[:2]
        assert info.rotation == clockwise
        sampled = clip(tmp_path / "turned.mp4", 8, height=expected.shape[0], width=expected.shape[1])
        for y, x in [(3, 3), (3, -4), (-4, 3), (-4, -4)]:
            assert np.abs(frames[:, y, x] - expected[y, x].astype(int)).max() < 12
            assert np.array_equal(sampled[:, y, x], frames[:, y, x])

    def test_a_slant_is_refused(self, tmp_path, mirror):
        run_ffmpeg("-display_rotation", "45", "-i", tmp_path / "mirror.mp4", "-c", "copy", tmp_path / "slanted.mp4")
        assert "90 degrees" in failure(video.read_frames, tmp_path / "slanted.mp4")

    @pytest.mark.parametrize("kind", ["mp4", "mkv"])
    def test_variable_frame_rate_keeps_its_timing(self, tmp_path, kind):
        ticks = [0, 40, 80, 300, 340, 900, 1000, 1400, 1450, 1500]
        path = encode(tmp_path / f"a.{kind}", counting(10), fps=1000, ticks=ticks)
        shown = [max(i for i, tick in enumerate(ticks) if tick <= 100 * n) for n in range(15)]
        assert numbers(clip(path, 15)) == shown
        assert numbers(clip(path, 10, start=0.32, end=1.3)) == [3, 4, 4, 4, 4, 4, 5, 6, 6, 6]

    def test_rounded_timestamps_neither_drop_nor_repeat(self, tmp_path):
        path = encode(tmp_path / "a.mkv", counting(40), fps=30)  # stored as 0, 33, 67, 100 … milliseconds
        assert numbers(clip(path, 40, fps=30)) == list(range(40))
        assert numbers(clip(path, 20, fps=15)) == list(range(0, 40, 2))

    def test_odd_size(self, tmp_path):
        path = encode(tmp_path / "a.mp4", counting(10, (33, 51)), pixels="yuv444p")
        frames, _ = video.read_frames(path)
        assert frames.shape == (10, 33, 51, 3) and numbers(frames) == list(range(10))
        assert numbers(clip(path, 10, height=17, width=40)) == list(range(10))

    @pytest.mark.parametrize("height, width, sar", [(32, 64, None), (32, 32, Fraction(2)), (64, 64, Fraction(1, 2))])
    def test_cover_and_centre_crop_respect_the_pixel_aspect(self, tmp_path, height, width, sar):
        image = np.zeros((height, width, 3), np.uint8)
        image[:] = RED
        margins = (height // 4, width // 4) if sar == Fraction(1, 2) else (0, width // 4)
        if sar == Fraction(1, 2):  # shown 32 wide and 64 high: the top and bottom quarters go
            image[margins[0] : -margins[0]] = GREEN
        else:  # shown 64 wide and 32 high: the left and right quarters go
            image[:, margins[1] : -margins[1]] = GREEN
        path = encode(tmp_path / "a.mp4", np.broadcast_to(image, (4, *image.shape)), pixels="yuv444p", crf="1", sar=sar)
        square = clip(path, 4, height=16, width=16)
        assert np.abs(square[:, 2:-2, 2:-2] - np.array(GREEN)).max() < 12
        assert video.read_frames(path)[0].shape == (4, height, width, 3)

    @pytest.mark.parametrize("kind, codec, pixels", [("mov", "qtrle", "argb"), ("webm", "libvpx-vp9", "yuva420p")])
    def test_alpha_is_dropped(self, tmp_path, kind, codec, pixels):
        image = np.zeros((32, 48, 4), np.uint8)
        image[..., :3], image[:, :24, 3], image[:, 24:, 3] = (200, 80, 40), 255, 10
        path = encode(tmp_path / f"a.{kind}", np.broadcast_to(image, (5, *image.shape)), codec=codec, pixels=pixels)
        assert np.abs(clip(path, 5) - np.array([200, 80, 40])).max() < 10

    def test_colour_matrix_of_the_file_is_respected(self, tmp_path):
        for matrix, (y, u, v) in {"6": (81, 90, 240), "1": (63, 102, 240)}.items():  # pure red in BT.601, BT.709
            path = tmp_path / "a.mp4"
            with av.open(str(path), "w") as container:
                stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
                stream.width, stream.height, stream.codec_context.colorspace = 32, 32, int(matrix)
                planes = [np.full((32, 32), y), np.full((8, 32), u), np.full((8, 32), v)]
                frame = av.VideoFrame.from_ndarray(np.concatenate(planes).astype(np.uint8), "yuv420p")
                container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
            assert np.abs(video.read_frames(path)[0] - np.array(RED)).max() <= 4

    def test_sound_is_ignored_but_is_no_video(self, tmp_path):
        path = encode(tmp_path / "a.mkv", counting(10), sound=2.5)
        assert numbers(video.read_frames(path)[0]) == list(range(10))
        assert video.probe(path).duration == pytest.approx(1, abs=0.01)
        assert "is too short: it has 1.00 s" in failure(clip, path, 11)
        run_ffmpeg("-i", path, "-vn", "-c", "copy", tmp_path / "sound.mp4")
        assert "no video stream" in failure(video.probe, tmp_path / "sound.mp4")
        video.write_image(tmp_path / "a.png", counting(1)[0])
        cover = ("-map", 0, "-map", 1, "-c", "copy", "-disposition:v", "attached_pic")
        run_ffmpeg("-i", tmp_path / "sound.mp4", "-i", tmp_path / "a.png", *cover, tmp_path / "covered.mp4")
        assert "no video stream" in failure(video.probe, tmp_path / "covered.mp4")

    def test_max_frames_is_a_limit_and_not_a_cut(self, tmp_path):
        path = encode(tmp_path / "a.mp4", counting(10))
        assert len(video.read_frames(path, max_frames=10)[0]) == 10
        assert "more than 9 frames" in failure(video.read_frames, path, max_frames=9)


class TestTrim:
    def test_start_and_end(self, tmp_path):
        path = encode(tmp_path / "a.mp4", counting(30))
        assert numbers(clip(path, 10, start=1)) == list(range(10, 20))
        assert numbers(clip(path, 10, start=1, end=2)) == list(range(10, 20))
        assert numbers(clip(path, 4, start=1.05, fps=5)) == [10, 12, 14, 16]
        assert numbers(clip(path, 5, start=2.5)) == list(range(25, 30))

    def test_too_short_names_both_lengths(self, tmp_path):
        path = encode(tmp_path / "a.mp4", counting(30))
        message = failure(clip, path, 40)
        assert "3.00 s" in message and "40 frames at 10 fps need 4.00 s" in message
        message = failure(clip, path, 11, start=1, end=2)
        assert "has 1.00 s" in message and "need 1.10 s" in message
        assert "has 3.00 s" in failure(clip, path, 6, start=2.5)

    def test_impossible_trims(self, tmp_path):
        path = encode(tmp_path / "a.mp4", counting(30))
        assert "start is -1" in failure(clip, path, 5, start=-1)
        assert "start is nan" in failure(clip, path, 5, start=float("nan"))
        assert "end is 1" in failure(clip, path, 5, start=1, end=1)
        for start in (3, 7, 1000):
            assert "has 3.00 s" in failure(clip, path, 1, start=start)

    @pytest.mark.parametrize(
        "kind, options", [("mp4", {"x264-params": "keyint=24:open-gop=1"}), ("mkv", {}), ("avi", {})]
    )
    def test_a_late_start_gives_the_same_frames_as_decoding_from_the_beginning(self, tmp_path, kind, options):
        frames = np.random.default_rng(1).integers(0, 255, (150, 2, 3, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        path = encode(tmp_path / f"a.{kind}", frames, fps=10, **options)
        whole, _ = video.read_frames(path)
        for start in (10.3, 12.0, 14.1):
            first = round(start * 10)
            assert np.array_equal(clip(path, 8, start=start, height=16, width=24), whole[first : first + 8])

    def test_a_late_start_in_one_long_still(self, tmp_path):
        path = encode(tmp_path / "a.mp4", counting(4), fps=1000, ticks=[0, 1000, 30_000, 31_000], g="1")
        assert numbers(clip(path, 3, start=28.5, fps=1)) == [1, 1, 2]

    def test_a_late_start_despite_a_wrong_index(self, tmp_path):
        path = encode(tmp_path / "a.mkv", counting(40).repeat(4, 0), g="20", header={"cluster_time_limit": "1000"})
        data = path.read_bytes()
        cue = b"\xb3\x82"  # Matroska's CueTime, of two bytes
        assert data.count(cue + (12_000).to_bytes(2)) == 1
        path.write_bytes(data.replace(cue + (12_000).to_bytes(2), cue + (10_500).to_bytes(2)))
        assert numbers(clip(path, 8, start=11)) == [27, 27, 28, 28, 28, 28, 29, 29]

    def test_a_late_start_reads_nothing_before_its_keyframe(self, tmp_path):
        path = encode(tmp_path / "a.mp4", counting(40).repeat(4, 0), g="20")
        _damage(path, packet=30)
        assert numbers(clip(path, 4, start=11)) == [27, 27, 28, 28]
        assert "damaged or truncated" in failure(clip, path, 4, start=5)

    def test_decoding_stops_after_the_clip(self, tmp_path):
        path = encode(tmp_path / "a.mp4", counting(50).repeat(36, 0), fps=30, header={"movflags": "+faststart"}, g="30")
        data = bytearray(path.read_bytes())
        half = len(data) // 2
        data[half:] = np.random.default_rng(0).bytes(len(data) - half)  # whatever reads on must fail
        path.write_bytes(data)
        tracemalloc.start()
        frames = clip(path, 16, fps=8, height=128, width=192)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert numbers(frames) == [int(n / 8 / 1.2) for n in range(16)]  # 36 frames of 1/30 s each show one number
        assert peak < 1.5 * frames.nbytes
        assert "damaged" in failure(video.read_frames, path)


class TestUnusableFiles:
    @pytest.mark.parametrize("kind", ["mp4", "mkv", "avi", "gif"])
    def test_a_truncated_file_gives_true_frames_or_an_error(self, tmp_path, kind):
        frames = np.random.default_rng(2).integers(0, 255, (40, 16, 24, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
        whole_file = encode(
            tmp_path / f"a.{kind}", frames, header={"movflags": "+faststart"} if kind == "mp4" else None
        )
        whole, _ = video.read_frames(whole_file)
        data = whole_file.read_bytes()
        path = tmp_path / f"cut.{kind}"
        readable = []
        for share in (0.4, 0.55, 0.7, 0.85, 0.9):
            path.write_bytes(data[: int(len(data) * share)])
            assert "damaged or truncated" in failure(video.read_frames, path)
            assert "need 4.00 s" in failure(clip, path, 40)
            readable.append(bisect_left(range(1, 41), True, key=lambda n: not _reads(path, n)))
            assert np.array_equal(clip(path, readable[-1], height=64, width=96), whole[: readable[-1]])
        assert readable == sorted(readable) and 5 < readable[0] < readable[-1] < 40

    @pytest.mark.parametrize("kind, held_back", [("avi", 2), ("mkv", 3), ("gif", 0)])
    def test_a_cut_at_any_frame_gives_true_frames(self, tmp_path, kind, held_back):
        frames = np.random.default_rng(2).integers(0, 255, (30, 16, 24, 3), dtype=np.uint8).repeat(2, 1).repeat(2, 2)
        reordering = {} if kind == "gif" else {"x264-params": "scenecut=0:b-adapt=0:bframes=3"}
        whole_file = encode(tmp_path / f"a.{kind}", frames, **reordering)
        whole, _ = video.read_frames(whole_file)
        data = whole_file.read_bytes()
        path = tmp_path / f"cut.{kind}"
        packets = _packets(whole_file)
        for packet in range(18, 26):
            position, size = packets[packet]
            path.write_bytes(data[: position + size if kind != "gif" else position + size // 2])
            good = bisect_left(range(1, 31), True, key=lambda n: not _reads(path, n))
            assert packet - held_back <= good <= packet + 1
            assert np.array_equal(clip(path, good), whole[:good])

    def test_damage_in_the_middle(self, tmp_path):
        frames = np.random.default_rng(2).integers(0, 255, (40, 16, 24, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
        path = encode(tmp_path / "a.mp4", frames, g="100", bf="0")
        whole, _ = video.read_frames(path)
        _damage(path, packet=20)
        assert "damaged or truncated after 2.00 s (a frame is corrupt)" in failure(video.read_frames, path)
        assert np.array_equal(clip(path, 20, height=64, width=96), whole[:20])
        message = failure(clip, path, 21)
        assert "it has 2.00 s" in message and "need 2.10 s" in message and "damaged" in message

    def test_a_truncated_file_without_its_index(self, tmp_path):
        path = encode(tmp_path / "a.mp4", counting(30))  # the index is at the end
        path.write_bytes(path.read_bytes()[:-200])
        assert "check that the file is whole" in failure(clip, path, 5)

    def test_no_video_at_all(self, tmp_path):
        (tmp_path / "text.mp4").write_text("This is no video.\n" * 500)
        (tmp_path / "empty.mp4").touch()
        (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
        os.mkfifo(tmp_path / "pipe.mp4")
        for name, words in {
            "text.mp4": "cannot be read as a video",
            "empty.mp4": "cannot be read as a video",
            "noise.mp4": "cannot be read as a video",
            "pipe.mp4": "expected a regular video file",
            "missing.mp4": "does not exist",
            ".": "is a folder",
        }.items():
            for call in (video.probe, video.read_frames, lambda path: clip(path, 5)):
                message = failure(call, tmp_path / name)
                assert words in message and "too short" not in message

    def test_time_is_limited(self, tmp_path, monkeypatch):
        path = encode(tmp_path / "a.mp4", counting(10))
        monkeypatch.setattr(ffmpeg, "TIMEOUT", 0.0)
        assert "took over" in failure(video.read_frames, path)
        assert "took over" in failure(video.write_video, tmp_path / "b.mp4", counting(10), 10)
        assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]

    def test_a_still_image_is_too_short(self, tmp_path, scene):
        for name in ("a.png", "%d.png"):
            video.write_image(tmp_path / name, scene[0])
            assert "too short" in failure(clip, tmp_path / name, 2)
            assert np.array_equal(video.read_frames(tmp_path / name)[0], scene[:1])

    @pytest.mark.parametrize(
        "name", ["-i.mp4", "concat:a.mp4|b.mp4", "file:a b.mp4", "%03d 'x'.mp4", "http:a.mp4", "é\n.mp4", "md5:/a.mp4"]
    )
    def test_strange_names_are_only_names(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        Path(name).parent.mkdir(exist_ok=True)
        video.write_video(Path(name), counting(10), 10)
        assert [p.name for p in Path(name).parent.iterdir()] == [Path(name).name]
        assert numbers(clip(Path(name), 10)) == list(range(10))
        assert video.probe(Path(name)).width == 48
        failure(clip, Path(name), 100)

    def test_a_playlist_opens_nothing(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        secret = encode(tmp_path / "secret.mp4", counting(10))
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.setblocking(False)
            lines = [str(secret), f"file:{secret}", secret.name, f"http://127.0.0.1:{server.getsockname()[1]}/a.mp4"]
            for line in lines:
                playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{line}\n#EXT-X-ENDLIST\n"
                for text in (playlist, f"ffconcat version 1.0\nfile '{line}'\n"):
                    for name in ("a.m3u8", "a.mp4", "a.ffconcat"):
                        (tmp_path / name).write_text(text)
                        if line == secret.name and text.startswith("#") == name.endswith("8") and name != "a.mp4":
                            with av.open(name) as naive:  # so the attack is real
                                assert len(list(naive.decode(video=0))) == 10
                        assert "cannot be read as a video" in failure(clip, tmp_path / name, 5)
            with pytest.raises(BlockingIOError):  # nobody has called
                server.accept()


class TestImages:
    def test_sorted_turned_and_cropped(self, tmp_path, mirror):
        Image.fromarray(mirror).save(tmp_path / "b.PNG")
        Image.fromarray(mirror).convert("RGBA").save(tmp_path / "c.webp", lossless=True)
        exif = Image.Exif()
        exif[0x0112] = 6  # stored turned: shown by a quarter turn clockwise
        Image.fromarray(np.rot90(mirror)).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
        (tmp_path / "notes.txt").write_text("no image")
        images = video.read_images(tmp_path, height=32, width=48)
        assert images.shape == (3, 32, 48, 3) and images.dtype == np.uint8
        assert np.array_equal(images[1], mirror) and np.array_equal(images[2], mirror)
        assert psnr(images[0], mirror) > 30
        middle = video.read_images(tmp_path, height=16, width=8)[1]
        assert (
            np.abs(middle[:6, :3] - np.array(RED)).max() < 30 and np.abs(middle[-6:, -3:] - np.array(WHITE)).max() < 30
        )

    def test_grey_of_16_bits_is_scaled(self, tmp_path):
        grey = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(32, 0)
        Image.fromarray(grey).save(tmp_path / "a.png")
        image = video.read_images(tmp_path, height=32, width=64)[0]
        assert np.array_equal(image, np.repeat((grey >> 8)[..., None], 3, axis=2))

    def test_errors(self, tmp_path):
        assert "holds no image" in failure(video.read_images, tmp_path, height=8, width=8)
        assert "no folder" in failure(video.read_images, tmp_path / "missing", height=8, width=8)
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
        data = (tmp_path / "a.png").read_bytes()
        for broken in (data[: len(data) // 2], b"text", b""):
            (tmp_path / "a.png").write_bytes(broken)
            assert "a.png" in failure(video.read_images, tmp_path, height=8, width=8)


def _packets(path: Path) -> list[tuple[int, int]]:
    """Position and size (bytes) of each video packet in a file, in decoding order."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def _damage(path: Path, packet: int) -> None:
    """Overwrites the second half of a packet with zeros."""
    data = bytearray(path.read_bytes())
    position, size = _packets(path)[packet]
    data[position + size // 2 : position + size] = bytes(size - size // 2)
    path.write_bytes(data)


def _reads(path: Path, num_frames: int) -> bool:
    try:
        clip(path, num_frames)
    except VideoError:
        return False
    return True
