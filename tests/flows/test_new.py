"""`effivmt new` writes a catalog from a folder of videos; without a caption a transfer runs all the same."""

import json
from pathlib import Path

import pytest
from command import effivmt

from effivmt.catalog import load_catalog


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder with videos of equal and of odd names, and other files."""
    names = ("a/video.mp4", "b/video.mov", "a b.MP4", "ä.webm", "c/x.mp4", "c-x.mp4", ".hidden/y.mp4", "notes.txt")
    for name in names:
        (tmp_path / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "films" / name).touch()
    return tmp_path / "films"


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_every_video_has_a_row_and_an_id_of_its_own(videos: Path, kind: str) -> None:
    path = videos.parent / f"c.{kind}"
    ended = effivmt("new", path, videos, "--prompt", "a yellow star", "--prompt", "a, b")
    assert ended.code == 0 and ended.out == f"{path}: 6 videos; effivmt run {path}\n"
    clips = load_catalog(path).clips
    ids = {clip.clip: clip.video.relative_to(videos).as_posix() for clip in clips}
    assert len(ids) == 6 and {"a-video", "b-video", "a-b"} < ids.keys()
    assert {clip.prompts for clip in clips} == {("a yellow star", "a, b")} and {clip.caption for clip in clips} == {""}
    (videos / "a" / "new.mp4").touch()
    assert effivmt("new", path.with_stem("d"), videos, "--prompt", "p").code == 0
    later = {clip.clip: clip.video.relative_to(videos).as_posix() for clip in load_catalog(path.with_stem("d")).clips}
    assert ids.items() < later.items()  # ids stay


def test_what_it_cannot_do_is_told(videos: Path) -> None:
    path = videos.parent / "c.csv"
    (videos.parent / "empty").mkdir()
    (videos.parent / "there.csv").touch()
    for arguments, told in (
        ((path, videos / "nothing"), "is no folder"),
        ((path, videos.parent / "empty"), "has no video"),
        ((videos.parent / "there.csv", videos), "exists already"),
        ((videos.parent / "c.parquet", videos), "is no .csv or .jsonl"),
        ((videos.parent / "empty" / "c.csv", videos), "is not in the folder of the catalog"),
        ((path, videos, "--prompt", "a|b"), "which parts prompts in CSV"),
    ):
        ended = effivmt("new", *arguments)
        assert ended.code == 2 and told in ended.err, ended
    assert not path.exists()
    ended = effivmt("new", path, videos)
    assert ended.code == 0 and "fill in the column prompts" in ended.out
    assert "column prompts: is missing" in effivmt("run", path, "--dry-run", "--store", videos / "store").err


def test_a_caption_can_be_left_out(project: Path, sample_video: Path, tmp_path: Path) -> None:
    places = ("--params", project / "params.yaml", "--store", tmp_path / "store", "--out", tmp_path / "out")
    ended = effivmt("transfer", sample_video, "--prompt", "a star", "--engine", "local", *places)
    assert ended.code == 0, ended.err
    (row,) = json.loads((tmp_path / "out" / "zigzag" / "metrics.json").read_text(encoding="utf-8"))["results"]
    assert "appearance_leakage" not in row["adapter"] and "text_similarity" in row["adapter"]


def test_wrong_use_of_transfer_is_told_before_an_engine_starts(
    project: Path, sample_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effivmt_tasks.server.reach_server", lambda **_: pytest.fail("an engine was started"))
    (tmp_path / "file").touch()
    (tmp_path / "text.mp4").write_text("no video", encoding="utf-8")
    places = ("--params", project / "params.yaml", "--store", tmp_path / "store")
    long = " ".join(["a red star"] * 9)
    for video, more, told, code in (
        (sample_video, ("--prompt", long), "would be lost", 2),
        (sample_video, ("--prompt", "p", "--caption", long), "would be lost", 2),
        (sample_video, ("--prompt", "p", "--out", tmp_path / "file"), "a file stands where a folder is expected", 1),
        (sample_video, ("--prompt", "p", "--start", "100"), "start is 100 s, but ", 1),
        (tmp_path / "text.mp4", ("--prompt", "p"), "cannot be read as a video", 1),
        (tmp_path / "gone.mp4", ("--prompt", "p"), "does not exist", 1),
    ):
        ended = effivmt("transfer", video, *more, *places)
        assert (ended.code, told in ended.err) == (code, True), ended
    assert not (tmp_path / "store" / "ingest").exists()
