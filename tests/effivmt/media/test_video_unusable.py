"""Files that are no usable video: one clear error each, and nothing outside the file is read."""

import os
import socket
from bisect import bisect_left
from pathlib import Path

import av
import numpy as np
import pytest
from filming import clip, counting, damage, encode, failure, numbers, packets_of

from effivmt.errors import VideoError
from effivmt.media import encoding, ffmpeg, video


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
            assert "before its damage, expected 40; " in failure(clip, path, 40)
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
        packets = packets_of(whole_file)
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
        damage(path, packet=20)
        assert "damaged or truncated after 2.00 s (a frame is corrupt)" in failure(video.read_frames, path)
        assert np.array_equal(clip(path, 20, height=64, width=96), whole[:20])
        message = failure(clip, path, 21)
        assert (
            "has 20 frames at 10 fps from 0 s on before its damage, expected 21; " in message
            and "after 2.00 s" in message
        )

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
        for module in (ffmpeg, encoding):
            monkeypatch.setattr(module, "TIMEOUT", 0.0)
        assert "took over" in failure(video.read_frames, path)
        assert "took over" in failure(video.write_video, tmp_path / "b.mp4", counting(10), 10)
        assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]

    def test_a_still_image_is_too_short(self, tmp_path, scene):
        for name in ("a.png", "%d.png"):
            video.write_image(tmp_path / name, scene[0])
            assert "too short" in failure(clip, tmp_path / name, 5)
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
        failure(clip, Path(name), 100, start=2)

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


def _reads(path: Path, num_frames: int) -> bool:
    try:
        clip(path, num_frames)
    except VideoError:
        return False
    return True
