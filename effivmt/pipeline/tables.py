"""Tables over all clips of a catalog, from the files that a step placed: loss curves and metrics."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from effivmt.evaluation.metrics import KINDS, METRICS, mean_metrics, ordered
from effivmt.pipeline.csv_table import write_csv
from effivmt.store.files import atomic_write

LOSSES, TABLE = "losses.csv", "metrics.csv"
POINTS = 100
"""Most points of a curve: a longer one is averaged over that many equal stretches of steps."""
HEADLINES = {"motion": "motion_fidelity", "text": "text_similarity", "leakage": "appearance_leakage"}
"""The metrics of summary.json by their names there, which fit `dvc exp show` into a terminal of 80 columns."""
ALL = "all clips"
"""Where a table names a clip; no clip's id has a space."""


def write_losses(folder: Path, clips: Sequence[str]) -> None:
    """Writes losses.csv from every clip's losses.json: clip, loss (its name), step (the last of a stretch), value."""
    rows = []
    for clip in clips:
        for name, values in sorted(_read(folder / clip / "losses.json").items()):
            rows += [(clip, name, step, value) for step, value in thinned(values)]
    write_csv(folder / LOSSES, ("clip", "loss", "step", "value"), rows)


def write_metrics(folder: Path, summary: Path, clips: Sequence[str]) -> None:
    """Writes metrics.csv and the folder `summary` from every clip's metrics.json.

    metrics.csv: clip, video (with or without the adapter), metric, value; a clip's values are means over its videos,
    those of `ALL` over all clips. What could not be measured is in no mean, and has no row where nothing is left.
    summary: `clips/<clip>.json` has the same of one clip, {metric: value, "without_adapter": {metric: value}}, and
    `mean.json` the means over all clips. Files of clips that are not among `clips` go.
    """
    means = {clip: _means(_read(folder / clip / "metrics.json")) for clip in clips}
    mean = _means(means.values())
    rows = [
        (clip, KINDS[kind], METRICS[name].label if name in METRICS else name, value)
        for clip, kinds in [*means.items(), (ALL, mean)]
        for kind, values in kinds.items()
        for name, value in values.items()
    ]
    write_csv(folder / TABLE, ("clip", "video", "metric", "value"), rows)
    for path in (summary / "clips").glob("*.json"):
        if path.stem not in means:
            path.unlink()
    files = {f"clips/{clip}.json": kinds for clip, kinds in means.items()} | {"mean.json": mean}
    (summary / "clips").mkdir(parents=True, exist_ok=True)
    for name, kinds in files.items():
        document = {**kinds.get("adapter", {}), "without_adapter": kinds.get("baseline", {})}
        with atomic_write(summary / name) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_summary(path: Path, means: Path) -> None:
    """Writes `HEADLINES` of the mean.json `means`, to three decimals; what could not be measured is left out."""
    found = _read(means)
    document = {short: round(found[name], 3) for short, name in HEADLINES.items() if name in found}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def thinned(values: Sequence[float]) -> list[tuple[int, float]]:
    """A curve by step, from 1: at most `POINTS` pairs of a stretch's last step and its mean."""
    ends = [len(values) * (i + 1) // min(POINTS, len(values)) for i in range(min(POINTS, len(values)))]
    return [(end, round(fmean(values[start:end]), 6)) for start, end in zip([0, *ends], ends, strict=False)]


def _means(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Means by kind of video and metric, over the rows that have it."""
    rows, means = list(rows), {}
    for kind in KINDS:
        if found := mean_metrics(row[kind] for row in rows if kind in row):
            means[kind] = {name: round(found[name], 6) for name in ordered(found)}
    return means


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
