"""Catalog runs: each clip goes through its stages on its own, and one that fails is set aside with its reason.

A run's folder holds an out folder per clip, `catalog.parquet` (the catalog as the run read it), `run.json` (the outcome
of every clip), `quarantine.csv` (the clips that failed) and `report.html` (the page of the run).
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from effivmt.catalog import Catalog, Clip, read_catalog
from effivmt.errors import CatalogError, EffiVMTError, in_one_line
from effivmt.pipeline.catalog_table import write_catalog_table
from effivmt.pipeline.csv_table import read_csv, write_csv
from effivmt.pipeline.healing import heal
from effivmt.pipeline.hits import find_hits
from effivmt.pipeline.outcomes import QUARANTINE, RUN, ClipOutcome, RunSummary, Status
from effivmt.pipeline.previews import with_previews
from effivmt.pipeline.removed_rows import removed_rows
from effivmt.pipeline.runner import CallStage, StageRunner
from effivmt.pipeline.transfer import TransferMethod, TransferResult, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.pipeline.write_outputs import write_outputs
from effivmt.report.run_report import write_run_report
from effivmt.store.disk_errors import write_errors
from effivmt.store.files import atomic_write


def process_clip(
    work: Workspace, clip: Clip, out: Path, call: CallStage | None = None, *, method: TransferMethod = run_clip
) -> ClipOutcome:
    """Takes one clip through all stages and writes `out/<clip>/`; never raises an Exception: errors are in the outcome.

    call: how an engine calls a stage. method: by default EffiVMT.
    """
    runner = StageRunner(work.callback, call)

    def process() -> TransferResult | None:
        result = None
        for trial in heal(work.callback):
            with trial:
                result = method(with_previews(work, clip, out), clip, runner)
                runner.stage = "outputs"
                write_outputs(work, result, out)
        return result

    return attempt(clip, runner, process)


def attempt(clip: Clip, runner: StageRunner, process: Callable[[], TransferResult | None]) -> ClipOutcome:
    """Calls `process`, which works on one clip with `runner`; never raises an Exception: errors are in the outcome.

    `process` returns the result, or None where nothing of it is to be said.

    The reason is one line; that of an error which no user can cause also names the place in the code.
    """
    start, reason, taken = time.perf_counter(), "", ""
    told: tuple[str, ...] = ()
    status: Status = "failed"
    try:
        if result := process():
            taken = result.excerpt.describe() if result.excerpt.short else ""
            told = result.notices
        status = "hit" if all(run.cached for run in runner.runs) else "done"
    except Exception as error:  # noqa: BLE001  (one bad clip never stops the catalog)
        reason = in_one_line(error)
    return ClipOutcome(
        clip=clip.clip,
        status=status,
        seconds=round(time.perf_counter() - start, 3),
        stages={run.stage: round(run.seconds, 3) for run in runner.runs},
        hits=tuple(run.stage for run in runner.runs if run.cached),
        stage=runner.stage if reason else "",
        reason=reason,
        taken=taken,
        notices=told,
    )


def run_catalog(work: Workspace, catalog: Catalog, out: Path | str, *, method: TransferMethod = run_clip) -> RunSummary:
    """Takes the clips of a catalog through all stages, one by one, without an engine, and writes the folder `out`.

    Clips that the store has come first. Rows of the catalog that are no clips are among the failures.
    method: by default EffiVMT.
    """
    start, out = time.perf_counter(), Path(out)
    write_catalog_table(read_catalog(catalog.path), out)
    outcomes = [*faulty_rows(catalog), *find_hits(work, catalog, out, method=method)]
    for clip in remaining(catalog, outcomes):
        work.callback.on_clip_start(clip.clip)
        outcomes.append(process_clip(work, clip, out, method=method))
        work.callback.on_clip_end(outcomes[-1])
    return write_run(read_catalog(catalog.path), outcomes, out, time.perf_counter() - start)


def remaining(catalog: Catalog, outcomes: Sequence[ClipOutcome]) -> list[Clip]:
    """The clips of a catalog that have no outcome yet."""
    ended = {outcome.clip for outcome in outcomes}
    return [clip for clip in catalog.clips if clip.clip not in ended]


def faulty_rows(catalog: Catalog) -> list[ClipOutcome]:
    """A failed outcome for each row of a catalog that is no clip; the reason lists its faults."""
    reasons: dict[str, list[str]] = {}
    for fault in catalog.faults:
        reasons.setdefault(fault.clip, []).append(str(fault))
    return [
        ClipOutcome(clip, "failed", 0.0, {}, stage="catalog", reason=in_one_line(CatalogError("; ".join(texts))))
        for clip, texts in reasons.items()
    ]


def summarize(catalog: str, outcomes: Sequence[ClipOutcome], seconds: float) -> RunSummary:
    """The summary of a run that ends now."""
    counts = Counter(outcome.status for outcome in outcomes)
    ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return RunSummary(
        catalog,
        ended,
        round(seconds, 3),
        hit=counts["hit"],
        done=counts["done"],
        failed=counts["failed"],
        clips=list(outcomes),
    )


def failed_before(out: Path) -> list[str]:
    """Ids of the clips that failed in the last run; EffiVMTError where none has ended, or what it left is damaged."""
    try:
        failed = [outcome.clip for outcome in _read_outcomes(out) if outcome.status == "failed"]
        listed = [row["clip"] for row in read_csv(out / QUARANTINE)]
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise EffiVMTError(f"{out} has no {missing}: no run has ended there; run without --retry-failed") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EffiVMTError(
            f"{RUN} or {QUARANTINE} in {out} cannot be read ({in_one_line(error)}); run without --retry-failed"
        ) from error
    if failed != listed:
        raise EffiVMTError(
            f"{RUN} and {QUARANTINE} in {out} name different clips as failed: a run was cut short, or a file has "
            "changed; run without --retry-failed"
        )
    return failed


def write_run(catalog: Catalog, outcomes: Sequence[ClipOutcome], out: Path, seconds: float) -> RunSummary:
    """Writes run.json, quarantine.csv and report.html, and returns the summary.

    Clips of the catalog that this run left out keep their outcome of the run before.
    """
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        known = {outcome.clip: outcome for outcome in (*_earlier(out), *outcomes)}
        names = dict.fromkeys([*(clip.clip for clip in catalog.clips), *(fault.clip for fault in catalog.faults)])
        clips = [known[name] for name in names if name in known]
        summary = summarize(catalog.path.name, outcomes, seconds)
        summary = replace(summary, clips=clips, removed=removed_rows(catalog, out))
        with atomic_write(out / RUN) as temporary:
            temporary.write_text(json.dumps(asdict(summary), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        failed = [(clip.clip, clip.stage, clip.reason) for clip in clips if clip.status == "failed"]
        write_csv(out / QUARANTINE, ("clip", "stage", "reason"), failed)
        write_run_report(out)
    return summary


def _earlier(out: Path) -> list[ClipOutcome]:
    """The outcomes in an earlier run.json; none where there is no whole one."""
    try:
        return _read_outcomes(out)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


def _read_outcomes(out: Path) -> list[ClipOutcome]:
    rows = json.loads((out / RUN).read_text(encoding="utf-8"))["clips"]
    return [ClipOutcome(**row | {name: tuple(row.get(name, ())) for name in ("hits", "notices")}) for row in rows]
