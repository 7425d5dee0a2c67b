"""Containers that neighbouring tools misread: late starts, early ends, stale tags, animations, still images."""

import numpy as np
import pytest
from filming import clip, counting, encode, failure, numbers, run_ffmpeg
from PIL import Image

from effivmt.media import video


@pytest.fixture
def source(tmp_path):
    """30 frames at 10 fps."""
    return encode(tmp_path / "source.mp4", counting(30))


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "ts"])
def test_a_late_start_loses_no_frame_and_is_no_damage(tmp_path, source, kind):
    path = tmp_path / f"late.{kind}"
    run_ffmpeg("-i", source, "-output_ts_offset", 5, "-c", "copy", path)
    assert numbers(video.read_frames(path)[0]) == numbers(clip(path, 30)) == list(range(30))
    assert video.probe(path).duration == pytest.approx(3, abs=0.11)


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_video_within_longer_sound(tmp_path, source, kind):
    path = tmp_path / f"a.{kind}"
    sound = ("-f", "lavfi", "-i", "sine=d=9", "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac")
    run_ffmpeg("-itsoffset", 2, "-i", source, *sound, path)
    assert numbers(video.read_frames(path)[0]) == list(range(30))
    assert video.probe(path).duration == pytest.approx(3, abs=0.11)


def test_a_stale_duration_tag_is_no_damage_but_a_cut_file_is(tmp_path):
    path = encode(tmp_path / "a.mkv", counting(30))
    data = path.read_bytes().replace(b"00:00:03", b"00:00:38")
    path.write_bytes(data)
    assert numbers(video.read_frames(path)[0]) == list(range(30))
    assert video.probe(path).duration == pytest.approx(3, abs=0.11)
    path.write_bytes(data[: len(data) * 2 // 3])
    assert "damaged or truncated" in failure(video.read_frames, path)


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_an_animation_is_read_as_a_video(tmp_path, name):
    first, *others = (Image.fromarray(frame) for frame in np.ascontiguousarray(counting(30)))
    first.save(tmp_path / name, save_all=True, append_images=others, duration=100)
    assert numbers(clip(tmp_path / name, 30)) == list(range(30))
    assert video.probe(tmp_path / name).duration == pytest.approx(3, abs=0.01)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    assert "damaged or truncated" in failure(video.read_frames, tmp_path / name)


def test_an_animated_webp_is_named(tmp_path):
    first, *others = (Image.fromarray(frame) for frame in np.ascontiguousarray(counting(6)))
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, duration=100)
    assert "is an animated WebP, which cannot be read: convert it to mp4" in failure(clip, tmp_path / "a.webp", 5)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif"])
def test_a_still_image_is_named(tmp_path, name):
    Image.fromarray(np.ascontiguousarray(counting(4)[3])).save(tmp_path / name)
    assert "it has a single frame, as a still image has; expected a video" in failure(clip, tmp_path / name, 5)
    assert video.probe(tmp_path / name).width == 48
