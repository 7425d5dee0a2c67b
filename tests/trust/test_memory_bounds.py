"""Small files take little memory: peaks are those of processes of their own."""

import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from trial import effivmt, measured

from effivmt.errors import VideoError
from effivmt.evaluation.quality import edge_steepness, sharpness
from effivmt.media.video import MAX_IMAGE_PIXELS, read_frames, read_images
from effivmt.pipeline.api import evaluate_videos

GIGABYTE = 10**9


def filmed(path: Path, size: str, frames: int, *options: str) -> Path:
    """A video of a plain colour, of a few kilobytes whatever its size; by default as H.264."""
    source = ("-f", "lavfi", "-i", f"color=navy:size={size}:rate=30", "-frames:v", str(frames))
    coded = (*(options or ("-c:v", "libx264", "-preset", "ultrafast")), "-threads", "1", str(path))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *source, *coded]
    subprocess.run(command, check=True, timeout=240)
    return path


PEAK = """
import sys
from pathlib import Path
from effivmt.media import ffmpeg, video

def peak():
    (size,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(size) * 1024

path, before = Path(sys.argv[1]), peak()
frames = sum(1 for _ in ffmpeg.decode(path))
decoding = peak() - before
shape = video.read_frames(path, max_bytes=2**24)[0].shape
print(frames, decoding, peak() - before, *shape)
"""


def test_frames_go_as_they_come_and_are_scaled(tmp_path):
    ended = measured(tmp_path, filmed(tmp_path / "v.mp4", "1280x720", 120), code=PEAK)
    frames, decoding, reading, *shape = map(int, ended.out.split())
    assert frames == 120 and decoding < 60 * 1280 * 720 * 1.5, ended  # half of what all frames take
    assert shape[0] == 120 and np.prod(shape) <= 2**24 and reading < 10**8, ended
    assert abs(shape[2] / shape[1] - 16 / 9) < 0.05


def test_a_small_video_keeps_its_size(sample_video):
    whole, bounded = (read_frames(sample_video, max_bytes=limit)[0] for limit in (None, 2**24))
    assert np.array_equal(whole, bounded)


def test_a_frame_of_too_many_pixels_is_refused(tmp_path):
    video = filmed(tmp_path / "v.mp4", "4352x2304", 1)
    with pytest.raises(
        VideoError, match=r"has frames of 4352x2304 pixels \(yuv420p\), expected at most 9437184 pixels"
    ):
        read_frames(video)
    Image.new("L", (9000, 4000)).save(tmp_path / "v.png", compress_level=1)
    with pytest.raises(VideoError, match="expected at most 9437184 pixels"):
        read_frames(tmp_path / "v.png")


def test_an_image_of_too_many_pixels_is_refused(tmp_path):
    side = int(MAX_IMAGE_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(tmp_path / "a.png", compress_level=1)
    with pytest.raises(VideoError, match=f"{side}x{side} pixels, expected at most {MAX_IMAGE_PIXELS}"):
        read_images(tmp_path, height=32, width=32)


def test_an_image_is_opened_as_what_its_name_says(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(VideoError, match="cannot be decoded"):
        read_images(tmp_path, height=32, width=32)


def test_a_shape_that_metrics_cannot_take_is_one_line(tmp_path, sample_video):
    for size in ("1024x2", "512x128"):
        ended = effivmt("evaluate", filmed(tmp_path / "v.mp4", size, 5), sample_video, "--prompt", "x")
        assert ended.code == 1 and f"has {size} pixels; metrics need sides of 16 or more" in ended.fault


def steepness_at_once(frames: np.ndarray) -> float:
    """`edge_steepness` with all edges of the video in memory, as it was first written."""
    window = np.ones((max(3, round(frames.shape[2] / 8)),) * 2, np.uint8)
    contrasts, slopes = [], []
    for frame in frames:
        contrast = (cv2.dilate(frame, window).astype(np.float32) - cv2.erode(frame, window)).max(-1)
        dx, dy = (cv2.Sobel(frame, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
        slope = np.hypot(dx, dy).max(-1)
        edge = slope >= cv2.dilate(slope, window)
        contrasts.append(contrast[edge])
        slopes.append(slope[edge])
    contrast, slope = np.concatenate(contrasts), np.concatenate(slopes)
    strong = contrast >= max(contrast.max() / 2, 8.0)
    return float((slope[strong] / contrast[strong]).mean()) if strong.any() else 0.0


def test_the_sharpness_is_what_it_was(sample_video):
    rng, video = np.random.default_rng(0), read_frames(sample_video)[0]
    noise = rng.integers(0, 256, (9, 48, 40, 3), dtype=np.uint8)
    for frames in (video, noise, np.zeros_like(noise), noise // 40, np.repeat(noise, 2, axis=2)):
        assert edge_steepness(frames) == steepness_at_once(frames)
    small = np.stack([cv2.resize(frame, (40, 40), interpolation=cv2.INTER_AREA) for frame in video])
    assert sharpness(video, noise) == steepness_at_once(noise) / steepness_at_once(small)


EVALUATE = """
import sys
from effivmt.pipeline.api import evaluate_videos
print(len(evaluate_videos(sys.argv[1], sys.argv[2], "a red square")))
"""
INGEST = """
import sys, tempfile
from pathlib import Path
from effivmt.catalog import Clip
from effivmt.params_file import load_params
from effivmt.pipeline.stages import ingest
from effivmt.pipeline.workspace import open_workspace

images = Path(sys.argv[2]) if Path(sys.argv[2]).is_dir() else None
clip = Clip(clip="a", video=Path(sys.argv[1]), caption="a", prompts=("b",), appearance_images=images)
with tempfile.TemporaryDirectory() as folder:
    ingest(open_workspace(load_params("tiny", ["ingest.num_frames=33", "sampling.frames=17"]), folder), clip)
"""
X264 = ("-c:v", "libx264", "-preset", "ultrafast")
WORST = {
    "HD": ("mp4", "1920x1080", 210, *X264),
    "4K": ("mp4", "4096x2304", 40, *X264, "-pix_fmt", "yuv420p", "-x264-params", "ref=16:bframes=3", "-level", "6.2"),
    "tall": ("mp4", "1728x5184", 40, *X264, "-pix_fmt", "yuv420p", "-x264-params", "ref=16:bframes=3", "-level", "6.2"),
    "2000 frames": ("mp4", "128x128", 2000, *X264),
    "alpha": ("mov", "3072x2304", 20, "-c:v", "qtrle", "-pix_fmt", "argb"),
    "PNG": ("png", "4096x2304", 1, "-update", "1", "-pix_fmt", "rgb24"),
}
"""Kind -> suffix, size, frames and codec of the largest videos of it that are not refused."""
IMAGES = {"PNG": ("RGBA", {"compress_level": 1}), "JPEG": ("RGB", {"progressive": True})}
"""Format -> mode and options of the largest images."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORST)
@pytest.mark.parametrize("code", [EVALUATE, INGEST], ids=["evaluate", "ingest"])
def test_the_worst_videos_take_less_than_a_gigabyte(tmp_path, kind, code):
    suffix, size, frames, *options = WORST[kind]
    video = filmed(tmp_path / f"v.{suffix}", size, frames, *options)
    assert video.stat().st_size < 2**20
    ended = measured(tmp_path, video, video, code=code)
    if kind == "PNG":  # one frame is too short for both
        assert ended.code == 1 and "errors.VideoError: " in ended.err.splitlines()[-1], ended
    else:
        assert ended.code == 0, ended
    assert ended.peak < GIGABYTE, ended


@pytest.mark.slow
@pytest.mark.parametrize("kind", IMAGES)
def test_the_largest_images_take_less_than_a_gigabyte(tmp_path, sample_video, kind):
    """As appearance images of ingest: two, of which one is in memory at a time."""
    mode, options = IMAGES[kind]
    (tmp_path / "images").mkdir()
    for number in range(2):
        image = Image.new(mode, (8192, 4096), (200, 40, 20, 9)[: len(mode)])
        image.save(tmp_path / f"images/{number}.{kind.lower()}", format=kind, **options)
    ended = measured(tmp_path, sample_video, tmp_path / "images", code=INGEST)
    assert ended.code == 0 and ended.peak < GIGABYTE, ended


def test_what_evaluate_refuses_is_told_to_python_too(tmp_path, sample_video):
    with pytest.raises(VideoError, match="one at most 3 times the other"):
        evaluate_videos(sample_video, filmed(tmp_path / "v.mp4", "16x512", 5), "x")
