"""Parquet files that are changed at random are read, or refused in one line: pyarrow must not end the process."""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from trial import Tries, measured

from effivmt.catalog import FAULTS_SHOWN, read_catalog
from effivmt.errors import AdapterError, CatalogError
from effivmt.method.heads import HeadMap, load_head_map, save_head_map

MUTANTS = 4000
PEAK = 10**9


def attempt_all(folder: Path, count: int) -> dict[str, int]:
    """How reading `count` mutants of each table ends: "read", or "refused" with one line."""
    catalog, heads, chance = folder / "c.parquet", folder / "heads.parquet", random.Random(24)
    rows = [{"clip": f"c{i}", "video": "a.mp4", "caption": "a", "prompts": ["x", "y"], "start": 0.5} for i in range(5)]
    scores = np.random.default_rng(0).random((2, 4))
    save_head_map(heads, HeadMap(scores, scores, scores < 0.5))
    readers: dict[Path, Callable[[Path], object]] = {catalog: read_catalog, heads: load_head_map}
    ends: Counter[str] = Counter()
    for packing in ("snappy", "zstd", "none"):
        parquet.write_table(pa.Table.from_pylist(rows), catalog, compression=packing)
        for path, read in readers.items():
            whole = path.read_bytes()
            for _ in range(count // 3):
                mutant = bytearray(whole)
                for _ in range(chance.choice((1, 1, 3, 10))):
                    mutant[chance.randrange(len(mutant))] = chance.randrange(256)
                path.write_bytes(mutant)
                try:
                    read(path)
                    ends["read"] += 1
                except (CatalogError, AdapterError) as error:
                    assert str(error).count("\n") <= FAULTS_SHOWN + 1 and len(str(error)) < 10_000
                    ends["refused"] += 1
            path.write_bytes(whole)
    return dict(ends)


def test_some_mutants(tmp_path: Path, tries: Tries) -> None:
    tries(sum(attempt_all(tmp_path, 60).values()))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_mutants(tmp_path: Path, tries: Tries) -> None:
    """In a process of its own, which pyarrow ended where it was asked for the facts of a damaged column."""
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom pathlib import Path\nimport json\n"
    program += "from test_mutated_tables import attempt_all\n"
    program += "print(json.dumps(attempt_all(Path(sys.argv[1]), int(sys.argv[2]))))"
    ended = measured(tmp_path, tmp_path, MUTANTS, code=program)
    assert ended.code == 0, ended.err[-3000:]
    ends = json.loads(ended.out)
    tries(sum(ends.values()))
    assert sum(ends.values()) == MUTANTS // 3 * 6 and min(ends.values()) > MUTANTS // 20
    assert ended.peak < PEAK
