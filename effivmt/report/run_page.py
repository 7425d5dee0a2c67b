"""The page of a catalog run: one HTML file with the videos, figures and numbers of every clip."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from effivmt.errors import VideoError
from effivmt.evaluation.metrics import finite_metrics, mean_metrics
from effivmt.report.charts import Chart
from effivmt.report.clip_page import Report, Result, Timing, charts, params_text
from effivmt.report.inline_media import InlineFile, InlineFiles
from effivmt.report.run_record import ClipMetrics, ClipRecord, RunRecord, labels_of, named_curves
from effivmt.report.templating import described, template

LIMIT = 64 * 2**20
"""Bytes of videos and images as base64 that a page embeds at most; beyond, it links to the pages of the clips."""


def render_run(out: Path, run: RunRecord) -> str:
    """Renders the HTML page of the run in `out`, the same text for the same files.

    Every text is escaped, and the page's content security policy lets a browser load nothing from elsewhere. Equal
    files are embedded once. A clip whose folder is missing or damaged is shown with that as its fault.
    """
    entries = [_entry(out, record) for record in run.clips]
    files = _collect(entries)
    results = [result for entry in entries for result in entry.results]
    metrics = described({name for it in results for name in (*it.metrics, *it.metrics_without_adapter)})
    return template("run.html.j2").render(
        run=run,
        made_of=run.digest,
        entries=entries,
        files=files,
        limit=LIMIT // 2**20,
        metrics=metrics,
        groups=_groups(entries),
        group_names=list(dict.fromkeys(entry.record.group for entry in entries)),
        videos=sum(1 + (result.without_adapter is not None) for result in results),
        computing=sum(entry.seconds for entry in entries),
    )


@dataclass
class Entry:
    """A clip as the page shows it: `report` where it has results, else `fault` says why not."""

    record: ClipRecord
    report: Report | None = None
    fault: str = ""

    @property
    def status(self) -> str:
        """`done`, `hit`, or `failed` where there are no results."""
        return self.record.status if self.report else "failed"

    @property
    def results(self) -> Sequence[Result]:
        """Its rendered videos."""
        return self.report.results if self.report else ()

    @property
    def charts(self) -> list[Chart]:
        """Its loss curves."""
        return charts(self.report) if self.report else []

    @property
    def params(self) -> str:
        """Its params as YAML."""
        return params_text(self.report) if self.report else ""

    @property
    def seconds(self) -> float:
        """Seconds that its stages took when they ran."""
        return sum(it.seconds for it in self.report.timings.values()) if self.report else self.record.seconds

    @property
    def values(self) -> str:
        """Values to sort clips by, as JSON: its seconds and the means of its metrics with the adapter."""
        means = mean_metrics(finite_metrics(result.metrics) for result in self.results)
        return json.dumps({"seconds": self.seconds} | means)

    @property
    def files(self) -> Iterator[Path]:
        """Its videos, the images that they begin with, and its head map."""
        if self.report:
            yield self.report.reference
            for result in self.results:
                yield result.video
                if result.without_adapter:
                    yield result.without_adapter
                if result.image:
                    yield result.image
            if self.report.head_map:
                yield self.report.head_map


@dataclass(frozen=True)
class Group:
    """The clips of one class: how many there are, how many failed, and their mean metrics over all videos."""

    name: str | None
    clips: int
    failed: int
    with_adapter: Mapping[str, float]
    without_adapter: Mapping[str, float]


def _entry(out: Path, record: ClipRecord) -> Entry:
    if record.status == "failed":
        return Entry(record, fault=record.reason)
    try:
        return Entry(record, _report(out / record.clip, record))
    except (OSError, ValueError, KeyError, TypeError):
        return Entry(record, fault=f"its folder {record.clip} is missing or incomplete; run this clip again")


def _report(folder: Path, record: ClipRecord) -> Report:
    """The report of a clip from its out folder; OSError, ValueError, KeyError or TypeError where that is incomplete."""
    metrics: ClipMetrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    losses: dict[str, dict[str, list[float]]] = json.loads((folder / "losses.json").read_text(encoding="utf-8"))
    made = record.made
    if made is None:
        raise ValueError("transfer.json is not whole")
    method = made.get("method")
    title = None if method is None else method["title"]
    own = {} if method is None or not method["params"] else {method["name"]: method["params"]}
    return Report(
        clip=record.clip,
        caption=record.caption,
        reference=folder / "reference.mp4",
        notices=metrics.get("notices", ()),
        backbone_id=made["backbone"]["id"],
        backbone_digest=made["backbone"]["digest"],
        results=[
            Result(
                prompt=row["prompt"],
                seed=row["seed"],
                video=folder / row["video"],
                metrics=row["adapter"],
                without_adapter=folder / row["without_adapter"] if "without_adapter" in row else None,
                metrics_without_adapter=row.get("baseline", {}),
                image=folder / row["image"] if "image" in row else None,
            )
            for row in metrics["results"]
        ],
        head_map=folder / "heads.png" if "heads.png" in made["files"] else None,
        losses=named_curves(losses),
        timings={stage: Timing(**timing) for stage, timing in made["stages"].items()},
        params={**made["params"], **own},
        versions=made["versions"],
        method=title or "",
        labels=labels_of(title, adapted=any(name.startswith("adapter/") for name in made["files"])),
    )


def _collect(entries: Sequence[Entry]) -> dict[Path, InlineFile] | None:
    """The files of all clips, by path; None where they are too large for a page.

    A clip with a file that cannot be shown loses its report.
    """
    inline = InlineFiles()
    for entry in entries:
        try:
            for path in entry.files:
                inline.add(path)
                if inline.size > LIMIT:
                    return None
        except VideoError as error:
            entry.report, entry.fault = None, f"{error}; run this clip again"
    return inline.files


def _groups(entries: Sequence[Entry]) -> list[Group]:
    """One group for each class, in the order of the catalog; where there are several, also one of all clips (None)."""
    by_name: dict[str, list[Entry]] = {}
    for entry in entries:
        by_name.setdefault(entry.record.group or "", []).append(entry)
    groups = [_group(name, members) for name, members in by_name.items()]
    return groups if len(groups) == 1 else [*groups, _group(None, entries)]


def _group(name: str | None, entries: Sequence[Entry]) -> Group:
    results = [result for entry in entries for result in entry.results]
    return Group(
        name,
        len(entries),
        sum(entry.status == "failed" for entry in entries),
        mean_metrics(finite_metrics(result.metrics) for result in results),
        mean_metrics(finite_metrics(result.metrics_without_adapter) for result in results),
    )
