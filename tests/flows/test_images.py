"""Images on the command line: a video that begins with one, and what is refused before any work."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import CAPTION, Ended, effivmt

from effivmt.media.video import read_frames, write_image
from effivmt.world.scenes import draw_clip


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    write_image(path, draw_clip(5, 3, kinds={"object": 1.0}, num_frames=17).frames[0])
    return path


@pytest.fixture(scope="module")
def taking(backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options that choose a backbone which takes a clean first frame."""
    folder = Path(shutil.copytree(backbone_folder, tmp_path_factory.mktemp("models") / "first-frame"))
    index = json.loads((folder / "model_index.json").read_text()) | {"_first_frame": True}
    (folder / "model_index.json").write_text(json.dumps(index))
    return "--set", f"backbone.path={folder}", "--set", "sampling.mode=anchored"


@pytest.fixture(scope="module")
def moved(
    transfer_arguments: Callable[..., list[str]],
    taking: tuple[str, ...],
    image: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Ended, Path]:
    out = tmp_path_factory.mktemp("moved")
    return effivmt(*transfer_arguments("--image", image, *taking, "--out", out, prompts=())), out / "zigzag"


def test_transfer_makes_an_image_move(moved: tuple[Ended, Path]) -> None:
    ended, folder = moved
    assert ended.code == 0, ended.err
    (row,) = json.loads((folder / "metrics.json").read_text())["results"]
    assert (row["video"], row["image"], row["prompt"]) == ("video-1.mp4", "image-1.png", "")


def test_render_takes_an_image(
    moved: tuple[Ended, Path], taking: tuple[str, ...], project: Path, image: Path, tmp_path: Path
) -> None:
    common = ("--params", project / "params.yaml", "--store", project / "store", *taking, "--quiet")
    ended = effivmt("render", moved[1] / "adapter", "--image", image, *common, "--out", tmp_path / "a.mp4")
    assert ended.code == 0, ended.err
    assert (tmp_path / "a.mp4").read_bytes() == (moved[1] / "video-1.mp4").read_bytes()
    options = ("--prompt", "a star", "--image", image, "--set", "sampling.mode=latent", "--out", tmp_path / "b.mp4")
    assert effivmt("render", moved[1] / "adapter", *common, *options).code == 0  # rendering samples no frames
    assert read_frames(tmp_path / "b.mp4")[0].shape == (17, 32, 32, 3)


def test_adapters_together_take_an_image(
    moved: tuple[Ended, Path], taking: tuple[str, ...], project: Path, image: Path, tmp_path: Path
) -> None:
    """Twice the half of a motion is the motion, and not none."""
    common = ("--params", project / "params.yaml", "--store", project / "store", *taking, "--quiet", "--image", image)
    adapter, frames = moved[1] / "adapter", {}
    for name, adapters, motions in (("whole", 1, (16,)), ("halves", 2, (8, 8)), ("none", 2, (0, 0))):
        strengths = [word for motion in motions for word in ("--motion", str(motion / 4))]
        out = tmp_path / f"{name}.mp4"
        ended = effivmt("render", *adapters * (adapter,), *strengths, *common, "--out", out)
        assert ended.code == 0, ended.err
        frames[name] = read_frames(out)[0].astype(float)
    same, other = (np.abs(frames["halves"] - frames[name]).mean() for name in ("whole", "none"))
    print(f"halves differ from the whole by {same:.3f} gray levels, and from none by {other:.3f}")
    assert same < other / 4


def test_a_catalog_has_images(taking: tuple[str, ...], project: Path, sample_video: Path, tmp_path: Path) -> None:
    shutil.copyfile(sample_video, tmp_path / "a.mp4")
    write_image(tmp_path / "a.png", draw_clip(5, 3, kinds={"object": 1.0}, num_frames=17).frames[0])
    rows = f"clip,video,caption,prompts,images\nzigzag,a.mp4,{CAPTION},,a.png\nother,a.mp4,,a star,gone.png\n"
    (tmp_path / "c.csv").write_text(rows)
    options = ("--params", project / "params.yaml", "--store", project / "store", "--engine", "local", *taking)
    ended = effivmt("run", tmp_path / "c.csv", *options, "--out", tmp_path / "out")
    assert ended.code == 1 and (tmp_path / "out" / "zigzag" / "image-1.png").is_file()
    (other,) = (tmp_path / "out" / "quarantine.csv").read_text().splitlines()[1:]
    assert other.startswith("other,images,") and "gone.png does not exist" in other


def test_the_examination_goes_on_with_what_it_has_and_prints_the_same(
    taking: tuple[str, ...], project: Path, sample_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shutil.copyfile(sample_video, tmp_path / "a.mp4")
    catalog = f"clip,video,caption,prompts,class\nzigzag,a.mp4,{CAPTION},a star,single object\n"
    (tmp_path / "c.csv").write_text(catalog)
    size = ("--set", "ingest.height=64", "--set", "ingest.width=64")
    folders = ("--store", tmp_path / "store", "--work", tmp_path / "work", "--catalog", tmp_path / "c.csv")
    options = ("--params", project / "params.yaml", "--samples", "4", *folders, *taking, *size)
    first = effivmt("pretrain", "images", *options)
    assert first.code == 0, first.err
    rows = [line.split("│")[1:-1] for line in first.out.splitlines() if "anywhere" in line or "reference's" in line]
    found = [[cell.strip() for cell in row] for row in rows]
    *kinds, room = found
    assert [row[:3] for row in kinds] == [
        [clip, place, "4"] for clip in ("zigzag", "all") for place in ("anywhere", "as the reference's")
    ]
    assert room[:3] == ["all", "anywhere, with room", "4"] and float(room[-2]) > 0.95
    kept, uncompressed, compressed = map(float, found[0][3:6])
    assert abs(kept - compressed) < min(0.1, abs(kept - uncompressed))  # the first frame is the autoencoder's
    assert [row[-1] == "–" for row in kinds] == [False, True] * 2

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("*/*/*.mp4")}
    assert len(made) == 12  # with an adapter eight, without it four
    lost = next(iter(made))
    shutil.rmtree(lost.parent)
    again = effivmt("pretrain", "images", *options)
    assert again.out == first.out
    assert {path for path, time in made.items() if path.stat().st_mtime_ns != time} == {lost}

    monkeypatch.setattr("effivmt_flows.cli.pretrain_images.ROOM", 2.0)  # no copy has it
    narrow = effivmt("pretrain", "images", *options).out
    assert [line.split("│")[3].strip() for line in narrow.splitlines() if "with room" in line] == ["0"]


def test_refusals_are_one_line(
    transfer_arguments: Callable[..., list[str]], taking: tuple[str, ...], image: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("none")
    for more, prompts, code, told in (
        ((), (), 2, "there is no --prompt"),
        (("--image", image), (), 2, "takes no image"),
        (("--image", image, "--image", image), ("a star",), 2, "expected one image for each prompt, not 2 for 1"),
        (("--image", tmp_path / "text.png", *taking), (), 1, "cannot be decoded"),
    ):
        ended = effivmt(*transfer_arguments(*more, "--out", tmp_path, prompts=prompts))
        assert ended.code == code and told in ended.err and ended.err.count("\n") == 1, ended.err
