"""Without a terminal tables are not folded, and each line but the last says how long the rest takes."""

import time

import pytest
from rich.table import Table

from effivmt_flows.cli.progress import NumberedLines
from effivmt_flows.cli.tables import results_console


@pytest.mark.parametrize(("columns", "whole"), [(None, True), ("40", False)])
def test_tables_are_not_folded_unless_asked(
    columns: str | None, whole: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    table = Table(*("a heading of words" for _ in range(6)))
    table.add_row(*("some words in here" for _ in range(6)))
    results_console().print(table)
    out = capsys.readouterr().out
    assert ("some words in here" in out) == whole
    assert whole or max(map(len, out.splitlines())) == 40


def test_a_line_tells_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([10.0, 40.0, 100.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    lines = NumberedLines(3)
    for text in ("one", "two", "three"):
        lines.ended(text)
    expected = ["[1/3] one; about 0:01:00 left", "[2/3] two; about 0:00:45 left", "[3/3] three"]
    assert capsys.readouterr().err.splitlines() == expected
