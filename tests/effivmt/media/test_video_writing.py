"""Writing videos and images, and reading images: whole files or none, the pixels that were given."""

import av
import numpy as np
import pytest
from filming import BLUE, GREEN, RED, WHITE, failure, psnr
from PIL import Image

from effivmt.media import video


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
