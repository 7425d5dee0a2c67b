"""Many clips: each goes through its stages on its own, and one that fails is set aside with its reason.

A run's folder holds one out folder a clip, `catalog.parquet` (what was asked for), `run.json` (what became of every
clip), `quarantine.csv` (the clips that failed) and `report.html` (the page that shows all of it).
"""

import csv
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from effivmt.catalog import Catalog, Clip, load_catalog
from effivmt.errors import EffiVMTError, in_one_line
from effivmt.pipeline.catalog_table import write_inventory
from effivmt.pipeline.outputs import write_outputs
from effivmt.pipeline.transfer import UNWATCHED, Call, StageRun, Watch, directly, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.report.run_report import write_run_report
from effivmt.store.files import atomic_write, write_errors

QUARANTINE = "quarantine.csv"
RUN = "run.json"


@dataclass(frozen=True)
class Outcome:
    """What became of one clip: `hit` (nothing was to do), `done` or `failed` (at `stage`, for `reason`).

    seconds: of each stage that ran to its end, and in all.
    """

    clip: str
    status: str
    seconds: float
    stages: dict[str, float]
    hits: tuple[str, ...] = ()
    stage: str = ""
    reason: str = ""


class Noting(Watch):
    """Passes everything on and notes which stage is at work and what each took."""

    def __init__(self, watch: Watch) -> None:
        self.stage, self.runs, self._watch = "", [], watch

    def started(self, stage: str) -> None:
        self.stage = stage
        self._watch.started(stage)

    def finished(self, run: StageRun) -> None:
        self.runs.append(run)
        self._watch.finished(run)


def process_clip(work: Workspace, clip: Clip, out: Path, *, call: Call = directly, watch: Watch = UNWATCHED) -> Outcome:
    """Takes one clip through all stages and writes `out/<clip>/`; whatever goes wrong is in the outcome."""

    def process(noting: Noting) -> None:
        result = run_clip(work, clip, call=call, watch=noting)
        noting.stage = "outputs"
        write_outputs(work, result, out)

    return attempt(clip, process, watch)


def attempt(clip: Clip, process: Callable[[Noting], None], watch: Watch = UNWATCHED) -> Outcome:
    """Runs `process` on one clip, under the eyes of a watch that notes its stages; it never raises an Exception.

    A fault of the input or the disk is told in one line; any other error with the place in the code where it arose.
    """
    start, noting = time.perf_counter(), Noting(watch)
    status, reason = "failed", ""
    try:
        process(noting)
        status = "hit" if all(run.cached for run in noting.runs) else "done"
    except Exception as error:  # noqa: BLE001  (one bad clip never stops the catalog)
        reason = in_one_line(error)
    return Outcome(
        clip=clip.clip,
        status=status,
        seconds=round(time.perf_counter() - start, 3),
        stages={run.stage: round(run.seconds, 3) for run in noting.runs},
        hits=tuple(run.stage for run in noting.runs if run.cached),
        stage=noting.stage if reason else "",
        reason=reason,
    )


class CatalogWatch(Watch):
    """Who watches a whole catalog; this one looks away."""

    def began(self, clip: str) -> None:
        """A clip begins."""

    def ended(self, outcome: Outcome) -> None:
        """A clip has ended, well or not."""


def run_catalog(work: Workspace, catalog: Catalog, out: Path, watch: CatalogWatch) -> dict[str, object]:
    """Takes the clips of a catalog through all stages, one by one, without an engine; returns what run.json holds."""
    start, outcomes = time.perf_counter(), []
    work.progress = watch.advanced
    write_inventory(load_catalog(catalog.path), out)
    for clip in catalog.clips:
        watch.began(clip.clip)
        outcomes.append(process_clip(work, clip, out, watch=watch))
        watch.ended(outcomes[-1])
    return write_run(load_catalog(catalog.path), outcomes, out, time.perf_counter() - start)


def failed_before(out: Path) -> list[str]:
    """Ids of the clips in the quarantine table of the last run; EffiVMTError where there was none."""
    try:
        with (out / QUARANTINE).open(encoding="utf-8", newline="") as file:
            return [row["clip"] for row in csv.DictReader(file)]
    except FileNotFoundError as error:
        raise EffiVMTError(f"{out} has no {QUARANTINE}: no run has ended there; run without --retry-failed") from error


def write_run(catalog: Catalog, outcomes: Sequence[Outcome], out: Path, seconds: float) -> dict[str, object]:
    """Writes run.json, quarantine.csv and report.html and returns the first's content.

    Clips of the catalog that this run left out keep what the last run said of them.
    """
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        earlier = {row["clip"]: row for row in _earlier(out)}
        now = {outcome.clip: asdict(outcome) | {"hits": list(outcome.hits)} for outcome in outcomes}
        rows = [now.get(clip.clip) or earlier.get(clip.clip) for clip in catalog.clips]
        rows = [row for row in rows if row is not None]
        counts = {status: sum(o.status == status for o in outcomes) for status in ("hit", "done", "failed")}
        document = {
            "catalog": catalog.path.name,
            "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(seconds, 3),
            **counts,
            "clips": rows,
        }
        with atomic_write(out / RUN) as temporary:
            temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with atomic_write(out / QUARANTINE) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["clip", "stage", "reason"])
            table.writerows([row["clip"], row["stage"], row["reason"]] for row in rows if row["status"] == "failed")
        write_run_report(out)
    return document


def _earlier(out: Path) -> Iterable[dict]:
    try:
        return json.loads((out / RUN).read_text(encoding="utf-8"))["clips"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return ()
