"""What is said while work goes on where there is no terminal."""

import re

import pytest

from effivmt.pipeline.outcomes import ClipOutcome
from effivmt_flows import heartbeat
from effivmt_flows.cli.progress import ClipLines


def test_the_time_left_counts_only_what_is_computed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines = ClipLines(6)
    for name, status, seconds in (("a", "hit", 50.0), ("b", "hit", 50.0), ("c", "done", 10.0), ("d", "done", 30.0)):
        now += seconds
        lines.on_clip_end(ClipOutcome(name, status, seconds, {}))
    said = capsys.readouterr().err.splitlines()
    assert [re.findall(r"about \S+ left", line) for line in said] == [
        [], [], ["about 0:00:30 left"], ["about 0:00:40 left"]
    ]  # fmt: skip


def test_a_long_stage_says_where_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines = ClipLines(1)
    lines.on_clip_start("zigzag")
    for step in range(1, 301):
        now += 1.0
        lines.on_stage_progress("temporal", step, 300)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"zigzag: temporal: {step} of 300" for step in (61, 121, 181, 241)]
    assert heartbeat.INTERVAL == 60
