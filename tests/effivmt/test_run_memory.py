"""What a run keeps in memory does not grow with its clips, but for a line about each."""

import gc
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from effivmt.catalog import load_catalog
from effivmt.config import Params
from effivmt.pipeline.catalog_run import run_catalog
from effivmt.pipeline.workspace import Workspace
from effivmt.store import verification
from effivmt.store.store import Store
from effivmt.store.verification import known_sha256

FEW, MANY = 3, 15


@pytest.mark.slow
def test_memory_of_a_run_does_not_grow_with_clips(run_folder: Path, tmp_path: Path) -> None:
    row = json.loads((run_folder.parent / "c.jsonl").read_text(encoding="utf-8").splitlines()[0])
    params = json.loads((run_folder / "one" / "transfer.json").read_text(encoding="utf-8"))["params"]
    work = Workspace(Store(run_folder.parent / "store"), Params.model_validate(params))

    def held_by_run_of(count: int) -> int:
        """Bytes that are still held after a run whose clips are hits."""
        rows = [json.dumps(row | {"clip": f"clip-{number}"}) for number in range(count)]
        catalog = run_folder.parent / f"{count}.jsonl"
        catalog.write_text("\n".join(rows), encoding="utf-8")
        summary = run_catalog(work, load_catalog(catalog), tmp_path / str(count))
        assert (summary.hit, summary.failed) == (count, 0), summary
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        held_by_run_of(1)  # modules
        few, many = held_by_run_of(FEW), held_by_run_of(MANY)
    finally:
        tracemalloc.stop()
    frames = sum(path.stat().st_size for path in (run_folder.parent / "store" / "ingest").rglob("frames.safetensors"))
    assert many - few < 0.5 * frames * (MANY - FEW), (few, many)
    assert many - few < 20_000 * (MANY - FEW), (few, many)


def test_digests_that_are_remembered_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_known", {})
    monkeypatch.setattr(verification, "MOST_KNOWN", 3)
    monkeypatch.setattr(verification, "_SETTLED", -1.0)
    for number in range(5):
        (tmp_path / str(number)).write_text(str(number))
        os.utime(tmp_path / str(number), (0, 0))
        known_sha256(tmp_path / str(number))
    assert [path.name for path in verification._known] == ["2", "3", "4"]
