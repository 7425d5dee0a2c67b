"""`effivmt animate`, as a user runs it."""

import json

import numpy as np
import pytest
from PIL import Image

from effivmt.media.video import write_video
from effivmt_flows.cli.main import main


@pytest.fixture
def made(tmp_path):
    """The out folder of a clip: its reference, and two results."""
    folder = tmp_path / "zigzag"
    folder.mkdir()
    for name, level in (("reference", 40), ("video-1", 120), ("video-2", 220)):
        frames = np.full((9, 64, 64, 3), level, np.uint8)
        frames[:, :32] += np.arange(0, 36, 4, dtype=np.uint8)[:, None, None, None]  # equal frames would be one
        write_video(folder / f"{name}.mp4", frames, 16)
    results = [{"prompt": f"prompt {number}", "video": f"video-{number}.mp4"} for number in (1, 2)]
    (folder / "metrics.json").write_text(json.dumps({"results": results}), encoding="utf-8")
    return folder


def test_the_reference_and_its_results_move_side_by_side(made, tmp_path, capsys) -> None:
    out = tmp_path / "shown" / "zigzag.gif"
    assert main(["animate", str(made), str(made), "--out", str(out), "--every", "2"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    with Image.open(out) as image:
        assert image.n_frames == 5 and image.info["duration"] == 120
        levels = np.asarray(image.convert("L"))[-40]
    assert [int(levels[x]) for x in (70, 210, 350)] == pytest.approx([40, 120, 220], abs=12)


def test_a_folder_that_is_none_of_a_clip_is_named(made, tmp_path, capsys) -> None:
    (made / "metrics.json").unlink()
    assert main(["animate", str(made), "--out", str(tmp_path / "a.gif")]) == 1
    assert "zigzag is not the out folder of a clip" in capsys.readouterr().err and not (tmp_path / "a.gif").exists()
