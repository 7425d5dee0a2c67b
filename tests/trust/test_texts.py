"""Texts of strangers: prompts of a megabyte, and names that a spreadsheet would take for formulas."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from trial import effivmt

from effivmt.catalog import MOST_CHARACTERS, read_catalog
from effivmt.errors import ParamsError
from effivmt.pipeline import stages
from effivmt.pipeline.api import evaluate_videos
from effivmt.pipeline.catalog_run import failed_before, run_catalog
from effivmt.pipeline.csv_table import read_csv, write_csv
from effivmt.pipeline.outcomes import QUARANTINE
from effivmt.pipeline.workspace import Workspace

LONG = "a red square " * 80_000
"""A prompt of a megabyte."""
ROWS = [
    {"clip": "good", "video": "gone.mp4", "caption": "a", "prompts": ["a star"]},
    {"clip": "long", "video": "gone.mp4", "caption": "a", "prompts": ["a star", LONG]},
]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_prompt_of_a_megabyte_is_one_fault(tmp_path, kind):
    path = tmp_path / f"c.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerows([ROWS[0], *([*[*row.values()][:3], " | ".join(row["prompts"])] for row in ROWS)])
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    else:
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    catalog = read_catalog(path)
    assert [clip.clip for clip in catalog.clips] == ["good"]
    (fault,) = catalog.faults
    assert str(fault).startswith("row 2, column prompts: 'a red square") and len(str(fault)) < 200


def test_a_text_of_a_megabyte_is_refused_by_every_way_in(workspace: Workspace, sample_video, tmp_path):
    for text, told in ((LONG, f"expected at most {MOST_CHARACTERS}"), ("a\udcff", "no Unicode at place 1")):
        with pytest.raises(ParamsError, match=told):
            stages.render(workspace, [text], None)
        for texts in ({"prompt": text}, {"prompt": "a", "caption": text}):
            with pytest.raises(ParamsError, match=told):
                evaluate_videos(sample_video, sample_video, **texts)
    ended = effivmt("transfer", sample_video, "--caption", "a", "--prompt", LONG, "--out", tmp_path)
    assert ended.code == 2 and "--prompt is 'a red square" in ended.fault and len(ended.fault) < 200
    assert not workspace.store.root.exists() and not list(tmp_path.iterdir())


FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2-3", "@SUM(A1)", "\t=1", "＝1+1", "a;\r=1")


def test_a_formula_is_a_text(tmp_path):
    """Where a comma is the decimal point, a semicolon separates cells."""
    path = tmp_path / "t.csv"
    write_csv(path, ("text", "value"), [*((formula, -1.5) for formula in FORMULAS), ("a;=1+1\t@b", -1)])
    text = path.read_bytes().decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    cells = [cell for line in text.split("\n")[1:] for cell in line.split(";")]
    assert not [cell for cell in cells if cell.lstrip('"')[:1] in set("=+-@\t\r＝")]
    assert rows[1][0] == "'=cmd|' /C calc'!A0"
    assert rows[-1] == ["a;'=1+1\t'@b", "-1"]  # a number stays one
    assert [row["text"] for row in read_csv(path)][:2] == list(FORMULAS[:2])


def test_formulas_of_a_catalog(workspace: Workspace, tmp_path: Path) -> None:
    """In ids, names of files and columns; what failed is found again by its id."""
    rows = [{"clip": "-2-3", "video": "=cmd|' x'!A0;=1.mp4", "caption": "=1", "prompts": ["=2"]}, {"=1+1": 1}]
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    run_catalog(workspace, read_catalog(path), tmp_path / "out")
    lines = (tmp_path / "out" / QUARANTINE).read_text(encoding="utf-8").splitlines()
    assert lines[1].startswith("'-2-3,ingest,") and ";'=1.mp4" in lines[1] and lines[2].startswith("row 2,catalog,")
    assert failed_before(tmp_path / "out") == ["-2-3", "row 2"]
