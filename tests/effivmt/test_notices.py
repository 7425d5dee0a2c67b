"""What a user is told of a clip that the backbone does not keep, and of an adapter that does nothing."""

import json
from pathlib import Path

import numpy as np
import pytest

from effivmt.catalog import Catalog
from effivmt.evaluation.metrics import MetricRow
from effivmt.pipeline.catalog_run import process_clip
from effivmt.pipeline.notices import COMPARED, notices
from effivmt.pipeline.reconstruction import KEPT, MOST, psnr
from effivmt.pipeline.workspace import Workspace


def row(ours: float | None, theirs: float | None) -> MetricRow:
    return {"prompt": "p", "seed": 0, "adapter": {COMPARED: ours}, "baseline": {COMPARED: theirs}}


def test_psnr_is_of_all_frames() -> None:
    frames = np.random.default_rng(0).integers(0, 200, (5, 8, 8, 3), dtype=np.uint8)
    assert psnr(frames, frames) == MOST
    assert psnr(frames, frames + np.uint8(10)) == pytest.approx(28.13, abs=0.01)


def test_a_clip_that_is_not_kept_is_told() -> None:
    (line,) = notices(20.4, [row(0.8, 0.2)])
    assert line.startswith("this backbone keeps little of this clip") and "20.4 dB, below 25 dB" in line
    assert notices(KEPT, [row(0.8, 0.2)]) == ()


def test_an_adapter_without_effect_is_told() -> None:
    (line,) = notices(30, [row(0.31, 0.30), row(0.29, 0.30), row(None, 0.9)])
    assert line.startswith("the adapter is not better than no adapter: ")
    assert line.endswith("0.300 with it, 0.500 without")
    for silent in ([row(0.4, 0.3)], [row(None, 0.3)], [{"prompt": "p", "seed": 0, "adapter": {COMPARED: 0.1}}]):
        assert notices(30, silent) == ()


def test_the_out_folder_and_the_outcome_tell_it(workspace: Workspace, catalog: Catalog, tmp_path: Path) -> None:
    """The random autoencoder of the tests keeps nothing."""
    outcome = process_clip(workspace, catalog.clips[0], tmp_path / "out")
    told = json.loads((tmp_path / "out" / "one" / "metrics.json").read_text(encoding="utf-8"))
    assert outcome.notices == tuple(told["notices"]) and "keeps little of this clip" in told["notices"][0]
    assert told["results"][0]["adapter"]["reconstruction_psnr"] < KEPT
    assert told["notices"][0] in (tmp_path / "out" / "one" / "report.html").read_text(encoding="utf-8")
