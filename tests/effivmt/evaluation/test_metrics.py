"""The order and the means of metrics, wherever they are shown."""

import math

from effivmt.evaluation.measure import load_metric_models, measure
from effivmt.evaluation.metrics import METRICS, finite_metrics, mean_metrics, ordered
from effivmt.media.video import read_frames


def test_known_metrics_come_first_and_others_by_name():
    names = ["zeal", "flicker", "motion_fidelity", "ardour", "flicker"]
    assert ordered(names) == ["motion_fidelity", "flicker", "ardour", "zeal"]
    assert ordered(reversed(METRICS)) == list(METRICS) and ordered([]) == []


def test_a_mean_is_over_the_rows_that_have_the_metric():
    assert mean_metrics([{"a": 1.0}, {"b": 2.0, "a": 4.0}, {}]) == {"a": 2.5, "b": 2.0}
    assert list(mean_metrics([{"b": 1.0}, {"a": 1.0}])) == ["b", "a"]
    assert mean_metrics([]) == {}
    assert mean_metrics([{"a": None, "b": None}, {"a": 3.0}]) == {"a": 3.0}
    assert math.isnan(mean_metrics([{"a": math.nan}, {"a": 1.0}])["a"])


def test_values_that_are_not_finite_can_be_left_out():
    row = {"a": 1.0, "b": math.nan, "c": math.inf, "d": None}
    assert finite_metrics(row) == {"a": 1.0}


def test_every_measured_metric_is_described(scorer_folder, sample_video):
    frames, _ = read_frames(sample_video)
    measured = measure(frames, frames, "a red square", load_metric_models(scorer_folder, None), caption="a square")
    others = METRICS.keys() - measured.keys()  # a moving ground's, and what ingest has measured
    assert measured.keys() <= METRICS.keys() and others <= {"background_leakage", "reconstruction_psnr"}
