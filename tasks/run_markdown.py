"""A catalog run as Markdown, which Prefect's pages show on any machine: counts, failures, and the clips' metrics."""

import json
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from effivmt.errors import printable
from effivmt.evaluation.metrics import METRICS, mean_metrics, ordered
from effivmt.pipeline.outcomes import ClipOutcome
from effivmt.pipeline.outputs import Outputs
from effivmt.report.run_report import PAGE

CLIPS_SHOWN = 200
"""A table has at most this many rows."""


def run_markdown(heading: str, outcomes: Sequence[ClipOutcome], out: Path) -> str:
    """The text: what failed first, then the metrics, means over a clip's videos, and where the page of the run is."""
    parts = [f"# {_cell(heading)}"]
    if failed := [outcome for outcome in outcomes if outcome.status == "failed"]:
        reasons = [(it.clip, it.stage, it.reason) for it in failed]
        parts += ["## Failed", _table(("clip", "stage", "reason"), reasons)]
    measured = {it.clip: _means(out / it.clip) for it in outcomes if it.status != "failed"}
    if names := ordered(name for means in measured.values() for name in means):
        rows = [
            (clip, *(f"{means[name]:.3f}" if name in means else "–" for name in names))
            for clip, means in measured.items()
        ]
        labels = [METRICS[name].label if name in METRICS else name for name in names]
        parts += ["## Metrics", _table(("clip", *labels), rows)]
    if (out / PAGE).is_file():
        parts.append(f"Page of the run, on {_cell(socket.gethostname())}: {_cell(str((out / PAGE).resolve()))}")
    return "\n\n".join(parts) + "\n"


def _means(folder: Path) -> dict[str, float]:
    """Means of a clip's metrics over its videos; none where its folder has no whole metrics.json."""
    try:
        results = json.loads(Outputs(folder, ()).metrics.read_text(encoding="utf-8"))["results"]
        return mean_metrics(row["adapter"] for row in results)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _table(headings: Sequence[str], rows: Sequence[Iterable[str]]) -> str:
    lines = [_row(headings), _row("---" for _ in headings), *map(_row, rows[:CLIPS_SHOWN])]
    more = f"\n\nand {len(rows) - CLIPS_SHOWN} more" if len(rows) > CLIPS_SHOWN else ""
    return "\n".join(lines) + more


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """A text as one cell: catalogs are not trusted, so nothing in it is Markdown or HTML."""
    escaped = "".join(f"\\{it}" if it in "\\`*_[]#|!" else it for it in printable(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")
