"""CoTracker as the tracker: its points, its spans, its errors; and where its package is there, the whole of it."""

import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from effivmt.errors import BackboneError
from effivmt.evaluation.cotracker import CoTracker, grid_queries, one_span
from effivmt.evaluation.measure import load_metric_models
from effivmt.evaluation.motion import compare_motion
from effivmt.evaluation.tracks import BIRTHS


def test_queries_are_the_centres_of_the_cells_at_frames_from_first_to_last() -> None:
    queries = grid_queries(33, 40, 80, 4)
    assert queries.shape == (BIRTHS * 16, 3) and queries.dtype == np.float32
    assert sorted(set(queries[:, 0])) == [0, 8, 16, 24, 32]
    assert sorted(set(queries[:, 1])) == [9.5, 29.5, 49.5, 69.5]
    assert sorted(set(queries[:, 2])) == [4.5, 14.5, 24.5, 34.5]


@pytest.mark.parametrize(
    ("seen", "birth", "span"),
    [("111111", 2, (0, 6)), ("011011", 2, (1, 3)), ("011011", 4, (4, 6)), ("000100", 3, (3, 4)), ("100001", 0, (0, 1))],
)
def test_only_the_span_around_the_birth_counts_and_outside_it_points_rest(
    seen: str, birth: int, span: tuple[int, int]
) -> None:
    points = np.stack([np.arange(6.0), np.zeros(6)], axis=1)[None]
    visible = np.array([[letter == "1" for letter in seen]])
    tracks = one_span(points, visible, np.array([birth]))
    first, end = span
    assert tracks.visible[0].tolist() == [first <= t < end for t in range(6)]
    assert tracks.points[0, :, 0].tolist() == np.clip(np.arange(6), first, end - 1).tolist()
    assert visible[0].tolist() == [letter == "1" for letter in seen]  # what was given is left as it was


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, scorer_folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "cotracker", None)
    with pytest.raises(BackboneError, match=r"needs the package cotracker: pip install git\+https"):
        load_metric_models(scorer_folder, Path("weights.safetensors"))


def test_the_published_model_tracks_every_point(tmp_path: Path, paint, curve: np.ndarray) -> None:
    """With random weights but for those that say that a point is visible: its interface, not its skill."""
    predictor = pytest.importorskip("cotracker.predictor").CoTrackerPredictor(checkpoint=None, window_len=60)
    with pytest.raises(BackboneError, match=r"none\.safetensors cannot be loaded .*offline weights as safetensors"):
        CoTracker(tmp_path / "none.safetensors")
    weights = predictor.model.state_dict()
    weights["updateformer.vis_conf_head.bias"].fill_(9.0)
    save_file(weights, tmp_path / "random.safetensors")
    tracker = CoTracker(tmp_path / "random.safetensors")
    frames = paint("square", curve[:9])
    tracks = tracker(frames, grid=2)
    assert tracks.points.shape == (BIRTHS * 4, 9, 2) and tracks.visible.all()
    born = grid_queries(*frames.shape[:3], 2)
    at_birth = tracks.points[np.arange(len(born)), born[:, 0].astype(int)]
    assert np.allclose(at_birth, born[:, 1:], atol=1e-3) and np.isfinite(tracks.points).all()
    again = tracker(frames, grid=2)
    assert np.array_equal(tracks.points, again.points) and np.array_equal(tracks.visible, again.visible)
    same = compare_motion(frames, frames, lambda video: tracker(video, grid=2))
    assert same.motion_fidelity >= 0.99
