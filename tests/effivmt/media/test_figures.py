"""The figures, measured in their pixels."""

import cv2
import numpy as np
import pytest

from effivmt.errors import EffiVMTError, ParamsError, VideoError
from effivmt.media.figures import BRANCH_COLOURS, PAPER, contact_sheet, curve, head_map, smooth
from effivmt.media.video import write_image

PAD, GAP = 24, 8
LEGEND_TOP = 380


def levels(values: list[int], height: int, width: int) -> np.ndarray:
    """A video whose frame t is the flat grey level values[t]."""
    return np.repeat(np.array(values, np.uint8), height * width * 3).reshape(len(values), height, width, 3)


def tiles(sheet: np.ndarray, side: int, row_bottom: int, columns: int) -> list[np.ndarray]:
    lefts = [PAD + index * (side + GAP) for index in range(columns)]
    return [sheet[row_bottom - side : row_bottom, left : left + side] for left in lefts]


def test_contact_sheet_shows_evenly_spaced_frames_with_the_first_and_the_last():
    sheet = contact_sheet([("", levels(list(range(0, 34, 2)), 64, 64))], columns=5)
    bottom = sheet.shape[0] - PAD
    shown = [np.unique(tile).tolist() for tile in tiles(sheet, 128, bottom, 5)]
    assert shown == [[0], [8], [16], [24], [32]]
    assert sheet.shape[1] == 2 * PAD + 5 * 128 + 4 * GAP


def test_contact_sheet_enlarges_small_frames_pixel_by_pixel():
    video = np.random.default_rng(0).integers(0, 200, (2, 16, 16, 3), dtype=np.uint8)
    sheet = contact_sheet([("noise", video)], columns=2)
    for tile, frame in zip(tiles(sheet, 128, sheet.shape[0] - PAD, 2), video, strict=True):
        np.testing.assert_array_equal(tile, frame.repeat(8, axis=0).repeat(8, axis=1))


def test_contact_sheet_shrinks_large_frames_to_200_px():
    sheet = contact_sheet([("", levels([10, 20], 480, 832))], columns=2)
    assert sheet.shape == (2 * PAD + 4 + 115, 2 * PAD + 2 * 200 + GAP, 3)
    assert (sheet == 20).sum() == 200 * 115 * 3


def test_contact_sheet_shows_each_frame_of_a_short_video_once():
    sheet = contact_sheet([("", levels([50, 60, 70], 64, 64))], columns=9)
    assert [(sheet == level).sum() // 3 for level in (50, 60, 70)] == [128 * 128] * 3


def test_contact_sheet_writes_every_label_above_its_row():
    rows = [
        ("reference", levels([250, 250], 64, 64)),
        ("", levels([250, 250], 64, 64)),
        ("b", levels([250] * 2, 64, 64)),
    ]
    sheet = contact_sheet(rows, columns=2)
    tops, top = [], PAD
    for label, _ in rows:
        label_height = (22 if label else 0) + 4
        tops.append((sheet[top : top + label_height] < 200).sum())
        top += label_height + 128 + PAD
    assert top == sheet.shape[0]
    assert tops[0] > tops[2] > 0
    assert tops[1] == 0


def test_contact_sheet_cuts_a_long_label_to_two_lines_inside_the_sheet():
    video = levels([250, 250], 64, 64)
    heights = {}
    for words in (1, 3, 12, 1000):
        sheet = contact_sheet([("motion " * words, video)], columns=2)
        assert (sheet[:, -PAD:] == PAPER).all()
        heights[words] = sheet.shape[0]
    assert heights[12] == heights[1000] == heights[1] + 22
    assert heights[3] == heights[1]
    cut = contact_sheet([("motion " * 12, video)], columns=2)
    np.testing.assert_array_equal(cut, contact_sheet([("motion " * 1000, video)], columns=2))
    unbroken = contact_sheet([("x" * 500, video)], columns=2)
    assert unbroken.shape[0] == heights[1000]
    assert (unbroken[:, -PAD:] == PAPER).all()


def test_contact_sheet_refuses_what_is_no_video():
    with pytest.raises(VideoError, match="row 'floats' of the contact sheet is float64"):
        contact_sheet([("floats", np.zeros((2, 8, 8, 3)))])
    with pytest.raises(VideoError, match=r"\(0, 8, 8, 3\)"):
        contact_sheet([("empty", np.zeros((0, 8, 8, 3), np.uint8))])
    with pytest.raises(VideoError, match="no video"):
        contact_sheet([])
    with pytest.raises(ParamsError, match="columns: given 1"):
        contact_sheet([("one", levels([0, 1], 8, 8))], columns=1)


def random_map(layers: int, heads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(layers * 100 + heads)
    spatial, temporal = draw.lognormal(size=(layers, heads)), draw.lognormal(size=(layers, heads))
    return spatial, temporal, np.where(spatial < 1.25 * temporal, "temporal", "spatial")


def cells(image: np.ndarray) -> dict[str, list[tuple[int, int, float]]]:
    """Per branch the (top, left, saturation) of each coloured square; the legend's bars are longer than high."""
    warmth = image[..., 0].astype(int) - image[..., 2]
    found = {}
    for branch, mask in (("spatial", warmth < -20), ("temporal", warmth > 20)):
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
        found[branch] = [
            (int(y), int(x), abs(float(warmth[y, x])))
            for x, y, width, height, area in stats[1:]
            if width == height and area == width * height
        ]
    return found


@pytest.mark.parametrize(("layers", "heads"), [(2, 2), (1, 1), (6, 4), (30, 12), (40, 40)])
def test_head_map_has_one_cell_a_head_in_the_colour_of_its_branch(layers, heads):
    spatial, temporal, branch = random_map(layers, heads)
    image = head_map(spatial, temporal, branch)
    found = cells(image)
    assert {name: len(squares) for name, squares in found.items()} == {
        name: int((branch == name).sum()) for name in BRANCH_COLOURS
    }
    placed = sorted((top, left, name) for name, squares in found.items() for top, left, _ in squares)
    assert [name for _, _, name in placed] == branch.ravel().tolist()
    assert image.dtype == np.uint8
    assert max(image.shape) < 1200


def test_head_map_is_stronger_where_the_scores_differ_more():
    temporal = np.array([[1.0, 2.0, 4.0, 8.0, 16.0]])
    found = cells(head_map(np.ones((1, 5)), temporal, np.full((1, 5), "temporal")))["temporal"]
    strengths = [strength for _, _, strength in sorted(found)]
    assert strengths == sorted(set(strengths))
    full = head_map(np.zeros((1, 2)), np.array([[0.5, 0.0]]), np.full((1, 2), "temporal"))
    assert (full == BRANCH_COLOURS["temporal"]).all(-1).sum() > 50 * 50


def test_head_map_draws_a_layer_of_one_branch_and_counts_it_in_its_row():
    _, _, branch = random_map(4, 4)
    ones = np.ones((4, 4))
    branch[1] = "spatial"
    before = head_map(ones, ones, branch)
    branch[1] = "temporal"
    after = head_map(ones, ones, branch)
    top = sorted(cells(before)["spatial"] + cells(before)["temporal"])[4][0]
    right_of_grid = 24 + 44 + 4 * 56
    counts = (before[:, right_of_grid:] != after[:, right_of_grid:]).any((1, 2))
    assert counts[top : top + 54].any()
    assert not counts[top - 56 : top].any()
    assert not counts[top + 54 :].any()


def test_head_map_refuses_a_damaged_map():
    spatial, temporal, branch = random_map(2, 3)
    with pytest.raises(EffiVMTError, match="shapes"):
        head_map(spatial.T, temporal, branch)
    with pytest.raises(EffiVMTError, match="temporal scores"):
        head_map(spatial, temporal - 10, branch)
    with pytest.raises(EffiVMTError, match="spatial scores"):
        head_map(spatial * np.nan, temporal, branch)
    with pytest.raises(EffiVMTError, match="'appearance'"):
        head_map(spatial, temporal, np.where(branch == "spatial", "appearance", branch))


def losses(count: int = 200) -> dict[str, list[float]]:
    noise = np.random.default_rng(3).normal(scale=0.05, size=(2, count))
    return {
        name: (0.4 + np.exp(-np.arange(count) / 40) + row).tolist()
        for name, row in zip(BRANCH_COLOURS, noise, strict=True)
    }


def near(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(image.astype(int) - colour).max(-1) < 12


def test_curve_draws_every_series_in_its_colour():
    labels = {"title": "Loss", "xlabel": "step", "ylabel": "loss"}
    both = losses()
    image = curve(both, **labels)
    assert image.shape == (432, 768, 3)
    assert all(near(image, colour).sum() > 500 for colour in BRANCH_COLOURS.values())
    alone = curve({"spatial": both["spatial"]}, **labels)
    assert near(alone, BRANCH_COLOURS["spatial"]).sum() > 500
    assert not near(alone, BRANCH_COLOURS["temporal"]).any()


def test_curve_leaves_a_gap_where_values_are_not_finite():
    labels = {"title": "Loss", "xlabel": "step", "ylabel": "loss"}
    flat = np.full(400, 2.0)
    broken = flat.copy()
    broken[150:250] = np.nan
    middle = slice(365, 450)
    assert near(curve({"spatial": flat}, **labels), BRANCH_COLOURS["spatial"])[:LEGEND_TOP, middle].any()
    assert not near(curve({"spatial": broken}, **labels), BRANCH_COLOURS["spatial"])[:LEGEND_TOP, middle].any()


def test_curve_draws_a_decay_straight_on_a_log_axis():
    image = curve({"spatial": (10.0 ** np.linspace(3, 0, 101)).tolist()}, title="", xlabel="", ylabel="", log_y=True)
    columns = np.arange(250, 500)
    mask = near(image, BRANCH_COLOURS["spatial"])[:LEGEND_TOP]
    heights = [np.flatnonzero(mask[:, column]).mean() for column in columns]
    line = np.polyval(np.polyfit(columns, heights, 1), columns)
    assert np.abs(heights - line).max() < 1.5


def test_curve_refuses_what_it_cannot_draw():
    labels = {"title": "Loss", "xlabel": "step", "ylabel": "loss"}
    with pytest.raises(EffiVMTError, match="no series"):
        curve({}, **labels)
    with pytest.raises(EffiVMTError, match="series 'spatial' of 'Loss' has no finite value"):
        curve({"spatial": [float("nan")]}, **labels)
    with pytest.raises(EffiVMTError, match="a value <= 0"):
        curve({"spatial": [1.0, 0.0]}, **labels, log_y=True)


def test_smooth_is_the_mean_of_the_finite_values_in_a_centred_window():
    values = np.random.default_rng(1).normal(size=80)
    values[[0, 30, 31]] = np.nan, np.inf, np.nan
    clean = np.where(np.isfinite(values), values, np.nan)
    expected = [np.nanmean(clean[max(0, index - 2) : index + 3]) for index in range(80)]
    np.testing.assert_allclose(smooth(values), expected, rtol=1e-12)
    np.testing.assert_array_equal(smooth([3.0, 1.0]), [3.0, 1.0])
    assert np.isnan(smooth([np.nan] * 50)).all()


def test_figures_are_the_same_bytes_every_time(tmp_path):
    def draw() -> list[bytes]:
        images = [
            contact_sheet([("a", levels([1, 2], 20, 30))]),
            head_map(*random_map(3, 5)),
            curve(losses(), title="Loss", xlabel="step", ylabel="loss"),
        ]
        for image in images:
            write_image(tmp_path / "figure.png", image)
            yield (tmp_path / "figure.png").read_bytes()

    first, second = list(draw()), list(draw())
    assert first == second
    for png in first:
        assert not any(chunk in png for chunk in (b"tEXt", b"iTXt", b"zTXt", b"tIME", b"Software"))
