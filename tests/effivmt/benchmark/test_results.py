"""The fields of results.json and results.parquet, in their order: other programs read them."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from effivmt.benchmark.cells import Cell, Job, JobResult
from effivmt.benchmark.measures import COSTS, ordered
from effivmt.benchmark.methods import METHODS, OURS
from effivmt.benchmark.results import Row, RunInfo, row_of, summarise, write_rows
from effivmt.catalog import Clip
from effivmt.config import Params

COSTS_OF_A_CELL = {"preparing_seconds": 3.0, "rendering_seconds": 1.5, "processor_seconds": None, "peak_bytes": 10**9}


@pytest.fixture
def rows() -> list[Row]:
    """Two methods on two clips; of the second method's, one cell failed."""
    found = []
    for number, name in enumerate((OURS, "smm")):
        for clip in ("one", "two"):
            row = Clip(clip=clip, video=Path("x.mp4"), caption="a square", prompts=("a star",), group="camera")
            metrics = {"later_metric": 0.25, "later_count": 3, "sharpness": 1.0 + number, "text_similarity": 0.5}
            cell = Cell(name, clip, "a star", 0, metrics=metrics, **COSTS_OF_A_CELL)
            if (name, clip) == ("smm", "two"):
                cell = Cell(name, clip, "a star", 0, error="broken")
            result = JobResult(Job(METHODS[name], Params(), row), (cell,), None, cached=False)
            found.append(row_of(result, cell, None))
    return found


def test_measures_have_one_order() -> None:
    names = ["peak_bytes", "unknown b", "motion_amount", "seconds", "text_similarity", "unknown a"]
    assert ordered(names) == ["text_similarity", "motion_amount", "unknown a", "unknown b", "seconds", "peak_bytes"]


def test_the_columns_of_results_parquet(rows: list[Row], tmp_path: Path) -> None:
    write_rows(tmp_path / "results.parquet", rows)
    table = pq.read_table(tmp_path / "results.parquet")
    first = ["method", "kind", "clip", "class", "unsaid", "prompt", "seed", "error", "cannot"]
    metrics = ["text_similarity", "sharpness", "later_count", "later_metric"]
    assert table.column_names == [*first, *metrics, *COSTS, "adapter", "video"]
    ours, failed = table.to_pylist()[0], table.to_pylist()[-1]
    assert (ours["seconds"], ours["processor_seconds"], ours["later_count"]) == (4.5, None, 3.0)
    assert failed["error"] == "broken" and failed["sharpness"] is None and failed["seconds"] is None


def test_the_fields_of_results_json(rows: list[Row]) -> None:
    summary = summarise(
        RunInfo("tiny", "wan", "0" * 64, "1", None, 1, {"seed": 0}), [METHODS[OURS], METHODS["smm"]], rows
    )
    document = json.loads(json.dumps(summary))
    assert list(document) == [
        "suite", "backbone", "backbone_digest", "version", "commit", "workers", "settings", "clips", "prompts",
        "seeds", "level", "draws", "claims", "methods", "failures",
    ]  # fmt: skip
    assert list(document["claims"][0]) == ["claim", "measure", "first", "times", "verdict", "other", "estimate"]
    smm = document["methods"]["smm"]
    assert list(smm) == [
        "title", "kind", "overrides", "against", "cells", "failed", "estimates", "differences", "by_class", "by_looks",
    ]  # fmt: skip
    assert (smm["cells"], smm["failed"], list(smm["by_class"]), smm["by_looks"]) == (2, 1, ["camera"], {})
    assert list(smm["estimates"]) == [
        "text_similarity", "sharpness", "later_metric", "seconds", "preparing_seconds", "rendering_seconds",
        "peak_bytes",
    ]  # fmt: skip
    assert smm["differences"][OURS]["sharpness"] == {"mean": 1.0, "low": None, "high": None, "clips": 1}
    assert document["failures"] == [{"method": "smm", "clip": "two", "error": "broken", "cells": 1}]
