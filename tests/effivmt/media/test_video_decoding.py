"""Decoding and trimming: every frame of every container, in order and at its time."""

import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from filming import CODES, GREEN, RED, clip, counting, damage, encode, failure, numbers, run_ffmpeg

from effivmt.media import video


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
        assert len(clip(path, 11)) == 9
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

    def test_a_short_video_gives_the_longest_clip_that_it_has(self, tmp_path):
        path = encode(tmp_path / "a.mp4", counting(30))
        assert numbers(clip(path, 41)) == list(range(29))
        assert numbers(clip(path, 29)) == list(range(29))
        assert numbers(clip(path, 13, start=1, end=2)) == list(range(10, 19))
        assert numbers(clip(path, 9, start=2.5)) == list(range(25, 30))

    def test_fewer_than_five_frames_are_too_short(self, tmp_path):
        path = encode(tmp_path / "a.mp4", counting(30))
        message = failure(clip, path, 9, start=2.6)
        assert (
            "it has 3.00 s, 0.40 s of them in the trim from 2.6 s on, expected at least 5 frames at 10 fps, 0.50 s"
            in message
        )
        assert "0.30 s of them in the trim from 1 s on" in failure(clip, path, 9, start=1, end=1.3)
        assert "0.00 s of them in the trim from 7 s on" in failure(clip, path, 9, start=7)

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
        damage(path, packet=30)
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
