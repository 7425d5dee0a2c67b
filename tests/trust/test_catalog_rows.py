"""A row of a catalog that is wrong in any way is a fault with its row and column, and the other clips run."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from trial import effivmt

from effivmt.catalog import FAULTS_SHOWN, Catalog, list_ignored, load_catalog, read_catalog
from effivmt.errors import CatalogError, printable
from effivmt.pipeline.catalog_run import run_catalog
from effivmt.pipeline.workspace import Workspace

GOOD = {"clip": "good", "video": "gone.mp4", "caption": "a red square", "prompts": ["a star"]}


def written(folder: Path, *rows: object) -> Path:
    """A JSONL catalog; a row that is text is written as it is."""
    path = folder / "c.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"video": "a" * 300}, "column video: 'aaa"),
        ({"video": "a\0b.mp4"}, "column video: 'a\\x00b.mp4' cannot be the path of a file"),
        ({"video": "loop.mp4"}, "column video: 'loop.mp4' cannot be the path of a file"),
        ({"video": "\ud800.mp4"}, "column video: '\\ud800.mp4' cannot be the path of a file"),
        ({"appearance_images": "a" * 300}, "column appearance_images: 'aaa"),
        ({"caption": "\ud800"}, "column caption: '\\ud800'"),
        ({"prompts": ["\udfff"]}, "column prompts: '\\udfff'"),
        ({"Seed": 1}, "column Seed: is to be written seed"),
        ({"start": 10**400}, "column start: 1000"),
        ({"start": 1e300}, "column start: 1e+300"),
        ({"seed": 2**63}, "column seed: 9223372036854775808"),
    ],
)
def test_a_wrong_cell_is_one_fault(tmp_path, wrong, told):
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    catalog = read_catalog(written(tmp_path, GOOD, GOOD | {"clip": "wrong"} | wrong))
    assert [clip.clip for clip in catalog.clips] == ["good"]
    (fault,) = catalog.faults
    assert fault.clip == "wrong" and f"row 2, {told}" in str(fault) and len(str(fault)) < 300
    assert printable(str(fault)) == str(fault)


def test_a_column_that_is_ignored_is_printed_as_escapes(tmp_path):
    told = list_ignored(read_catalog(written(tmp_path, GOOD | {"\ud800\x1b": 1})))
    assert told == "catalog c.jsonl: ignored, as they are no columns of a catalog: \\ud800\\x1b"


@pytest.mark.parametrize(("line", "told"), [("[" * 100_000, "nested more than 32 deep"), ('{"clip": ', "is not JSON")])
def test_a_wrong_line_is_one_fault(tmp_path, line, told):
    catalog = read_catalog(written(tmp_path, GOOD, line))
    assert [clip.clip for clip in catalog.clips] == ["good"]
    assert [str(fault)[:26] for fault in catalog.faults] == ["row 2, column all: line 2 "]
    assert told in str(catalog.faults[0])


def test_a_value_of_parquet_that_overflows_is_one_fault(tmp_path):
    rows = [GOOD | {"start": 0}, GOOD | {"clip": "wrong", "start": 2**62}]
    kinds = [("start", pa.duration("s")), *((name, pa.string()) for name in ("clip", "video", "caption"))]
    table = pa.Table.from_pylist(rows, pa.schema([*kinds, ("prompts", pa.list_(pa.string()))]))
    parquet.write_table(table, tmp_path / "c.parquet")
    with pytest.raises(CatalogError, match="row 2, column start: has a value that cannot be read"):
        load_catalog(tmp_path / "c.parquet")


@pytest.mark.parametrize("rows", [300_000, 1])
def test_a_parquet_file_is_bounded_by_its_metadata(tmp_path, rows):
    text = "x" * (100 if rows > 1 else 2**26 + 1)
    table = pa.table({"clip": pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [text])})
    parquet.write_table(table, tmp_path / "c.parquet", compression="zstd")
    assert (tmp_path / "c.parquet").stat().st_size < 100_000
    with pytest.raises(CatalogError, match="rows, or more than 64 MiB; divide it"):
        read_catalog(tmp_path / "c.parquet")


def test_a_catalog_that_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    for name, kind in (("pipe.csv", "pipe"), ("zero.jsonl", "device")):
        with pytest.raises(CatalogError, match=f"is a {kind}, expected a regular file"):
            read_catalog(tmp_path / name)


def test_paths_are_relative_to_the_file_that_a_link_leads_to(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.jsonl").symlink_to(written(tmp_path / "real", GOOD))
    (clip,) = load_catalog(tmp_path / "link.jsonl").clips
    assert clip.video == tmp_path / "real" / "gone.mp4"


def test_20000_wrong_rows_print_a_page(tmp_path):
    (tmp_path / "c.csv").write_text("clip,video,caption,prompts\n" + "no id,../x,,\n" * 20_000, encoding="utf-8")
    ended = effivmt("run", tmp_path / "c.csv", "--dry-run", "--store", tmp_path / "store")
    lines = ended.err.splitlines()
    assert ended.code == 2 and len(lines) == FAULTS_SHOWN + 2 and len(ended.err) < 4000
    assert "has 79999 faults" in lines[0] and lines[-1] == f"  and {79_999 - FAULTS_SHOWN} more"


def test_the_other_clips_run(workspace: Workspace, tmp_path: Path) -> None:
    path = written(tmp_path, GOOD | {"clip": "wrong", "video": "a\0b"}, GOOD, "[[")
    catalog = read_catalog(path)
    summary = run_catalog(workspace, catalog, tmp_path / "out")
    assert [(it.clip, it.stage) for it in summary.clips] == [
        ("good", "ingest"),
        ("wrong", "catalog"),
        ("row 3", "catalog"),
    ]
    assert summary.failed == 3 and "row 1, column video: 'a\\x00b'" in summary.clips[1].reason
    kept = (tmp_path / "out" / "quarantine.csv").read_text(encoding="utf-8").splitlines()
    assert len(kept) == 4 and kept[2].startswith("wrong,catalog,")
    again = run_catalog(workspace, catalog.only(("good",)), tmp_path / "out")
    assert again.failed == 1 and [it.clip for it in again.clips] == ["good", "wrong", "row 3"]


def test_the_command_tells_faults_and_goes_on(tmp_path):
    path = written(tmp_path, GOOD, GOOD | {"clip": "wrong", "video": "a" * 300})
    ended = effivmt("run", path, "--dry-run", "--store", tmp_path / "store")
    assert ended.code == 1 and "good: ingest: video" in ended.out
    assert "has 1 fault:\n  row 2, column video: 'aaa" in ended.err and "1 clip without a fault" in ended.err


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ROWS = ANY | st.fixed_dictionaries(
    {"clip": ANY | st.just("a"), "video": ANY | st.just("a.mp4")},
    optional={name: ANY for name in ("caption", "prompts", "class", "start", "end", "appearance_images", "seed")},
)


def check_any_rows(folder: Path, rows: list[object]) -> None:
    """Any JSON rows make a catalog, or a CatalogError that can be printed."""
    try:
        catalog = read_catalog(written(folder, *(json.dumps(row) for row in rows)))
    except CatalogError as error:
        text = str(error)
    else:
        assert isinstance(catalog, Catalog) and {fault.row for fault in catalog.faults} <= set(range(1, len(rows) + 1))
        text = "".join(map(str, catalog.faults))
    assert printable(text.replace("\n", "")) == text.replace("\n", "") and len(text) < 40_000


@given(st.lists(ROWS, max_size=4))
@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_rows(tries, tmp_path, rows):
    tries()
    check_any_rows(tmp_path, rows)


@pytest.mark.slow
@given(st.lists(ROWS, max_size=4))
@settings(max_examples=10_000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_10000_catalogs(tries, tmp_path, rows):
    tries()
    check_any_rows(tmp_path, rows)
