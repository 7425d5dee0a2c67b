"""Moving pictures, measured in their pixels and read back from their files."""

import numpy as np
import pytest
from PIL import Image

from effivmt.errors import ParamsError, VideoError
from effivmt.media.animation import GAP, LINE, TILE, side_by_side, write_animation


def levels(values: list[int], side: int = 64) -> np.ndarray:
    """A video whose frame t is the flat grey level values[t]."""
    return np.repeat(np.array(values, np.uint8), side * side * 3).reshape(len(values), side, side, 3)


def test_videos_play_beside_each_other_under_their_labels() -> None:
    frames = side_by_side([[("one", levels([10, 20, 30])), ("two", levels([90]))], [("three", levels([50, 60], 300))]])
    assert frames.shape == (3, 3 * GAP + 2 * (LINE + TILE), 3 * GAP + 2 * TILE, 3)
    top = GAP + LINE
    for time, level in enumerate((10, 20, 30)):
        assert (frames[time, top : top + TILE, GAP : GAP + TILE] == level).all()
        assert (frames[time, top : top + TILE, 2 * GAP + TILE : 2 * (GAP + TILE)] == 90).all()  # its last frame stays
    lower = top + TILE + GAP + LINE
    assert (frames[2, lower : lower + TILE, GAP : GAP + TILE] == 60).all()
    assert (frames[0, GAP : GAP + LINE, GAP : GAP + TILE] < 128).any()  # the label


def test_every_nth_frame_is_shown() -> None:
    frames = side_by_side([[("one", levels([10, 20, 30, 40, 50]))]], every=2)
    assert frames[:, -GAP - 1, GAP, 0].tolist() == [10, 30, 50]


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_the_file_plays_for_ever_at_the_rate(tmp_path, suffix) -> None:
    frames = side_by_side([[("one", levels([0, 128, 255]))]])
    write_animation(tmp_path / f"a{suffix}", frames, 8.0)
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.n_frames == 3 and image.info["loop"] == 0
        for time, level in enumerate((0, 128, 255)):
            image.seek(time)
            shown = np.asarray(image.convert("RGB"))
            assert shown.shape == frames.shape[1:] and abs(int(shown[-GAP - 8, GAP + 8, 0]) - level) < 8
            assert image.info["duration"] in (120, 125)  # a GIF counts in 1/100 s


def test_what_is_no_picture_is_refused(tmp_path) -> None:
    with pytest.raises(VideoError, match="no video"):
        side_by_side([[]])
    with pytest.raises(VideoError, match=r"expected uint8 \(T, H, W, 3\)"):
        side_by_side([[("", np.zeros((2, 4, 4), np.uint8))]])
    with pytest.raises(ParamsError, match=r"\.gif or \.webp"):
        write_animation(tmp_path / "a.mp4", levels([1]), 8.0)
