"""The flow of a deployment: all its parameters are JSON, and every run reads the catalog again."""

import logging
import sys
from datetime import datetime
from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from effivmt.catalog import list_faults, list_ignored, read_catalog
from effivmt.errors import DamageError, EffiVMTError, in_one_line, printable
from effivmt.params_file import load_params
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.hits import find_hits
from effivmt.pipeline.outcomes import ClipOutcome
from effivmt.pipeline.selection import select_clips, set_long_texts_aside
from effivmt.pipeline.workspace import open_workspace
from effivmt.store import DEFAULT_STORE
from effivmt_flows.catalog import process_clips, run_catalog_flow, run_name
from effivmt_flows.heartbeat import Heartbeat
from effivmt_tasks.cluster import choose_cluster
from effivmt_tasks.outage import expect_outage
from effivmt_tasks.stores import open_store

Stage = Literal["ingest", "mask", "heads", "spatial", "temporal", "render", "evaluate"]
"""The stages by name, as the schema of the deployment lists them."""


def _run_name() -> str:
    """The name of the flow run that begins now."""
    return run_name(Path(str(flow_run.parameters["catalog"])))


@flow(
    name="nightly",
    flow_run_name=_run_name,
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]  # Prefect's runner types are invariant
    persist_result=False,
)
def nightly(
    catalog: Path,
    params: str | None = None,
    overrides: list[str] = [],  # noqa: B006
    store: Path = DEFAULT_STORE,
    out: Path = Path("out"),
    only: list[str] = [],  # noqa: B006
    force: list[Stage] = [],  # noqa: B006
    retry_failed: bool = False,
    runner: Literal["threads", "dask"] = "threads",
    address: str = "",
    resource: str = "",
) -> State:
    """Transfers the motion of every clip of a catalog, as `effivmt run` does with the options of the same names.

    Fails, with one line that says why, when the catalog or the params are wrong, and when any clip has failed; the
    other clips are processed all the same. Relative paths are relative to the working folder of the process. Prints a
    line for every clip that is no hit, and one at the end.
    """
    logger = get_run_logger()
    expect_outage()
    try:
        settings = load_params(params, overrides)
        chosen = select_clips(read_catalog(catalog), tuple(only), out if retry_failed else None)
        if not chosen.clips:
            return Completed(message="nothing failed in the last run")
        callback = _LoggingCallback(len(chosen.clips))
        cluster = choose_cluster(runner, address, resource)
        # A wrong backbone folder ends the run here, before any clip fails for it.
        work = open_workspace(settings, open_store(store), callback=callback, force=force, here=cluster is None)
        chosen = set_long_texts_aside(work, chosen)
        if chosen.faults:
            logger.error("%s", list_faults(chosen))
        if ignored := list_ignored(chosen):
            logger.warning("%s", ignored)
        if work.scorer.fault:
            logger.warning("%s", work.scorer.fault)
        store, out = store.resolve(), out.resolve()
        hits = find_hits(work, chosen, out)
        if cluster is None:
            summary = process_clips(chosen, settings, store, out, hits=hits, force=tuple(force), callback=callback)
        else:  # a flow of its own: the task runner of this one is fixed
            summary = run_catalog_flow(
                chosen, settings, store, out, hits=hits, force=tuple(force), callback=callback, cluster=cluster
            )
    except EffiVMTError as error:
        reason = in_one_line(error)
        logger.error("%s", reason)
        _tell(f"{catalog}: {reason}")
        return Failed(message=reason)
    line = summary.message(out)
    logger.log(logging.ERROR if summary.failed else logging.INFO, "%s", line)
    _tell(f"{catalog}: {line}")
    return (Failed if summary.failed else Completed)(message=line)


def _tell(line: str) -> None:
    """Prints a line with the time on stderr, where `effivmt serve` or a worker shows it."""
    print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {printable(line)}", file=sys.stderr, flush=True)


class _LoggingCallback(Callback):
    """Writes to the flow's log: a line per clip, for a long stage, for what was damaged in the store, and notices."""

    def __init__(self, total: int) -> None:
        self._logger, self._ended, self._total, self._clip = get_run_logger(), 0, total, ""
        self._heartbeat = Heartbeat(lambda line: self._logger.info("%s", line))

    def on_clip_start(self, clip: str) -> None:
        self._clip = clip

    def on_stage_progress(self, stage: str, done: int, total: int) -> None:
        """Logs now and then how far the stage is."""
        self._heartbeat.moved(f"{self._clip}: {stage}", done, total)

    def on_clip_end(self, outcome: ClipOutcome) -> None:
        self._ended += 1
        reason = f": {outcome.stage}: {outcome.reason}" if outcome.reason else ""
        line = f"[{self._ended}/{self._total}] {outcome.clip}: {outcome.status} in {outcome.seconds:.1f} s{reason}"
        (self._logger.error if reason else self._logger.info)("%s", line)
        if outcome.status != "hit":
            _tell(line)

    def on_damage(self, damage: DamageError) -> None:
        """Logs the file and its fault."""
        self._logger.warning("%s: %s", self._clip, damage)

    def on_notice(self, notice: str) -> None:
        """Logs the clip and the notice."""
        self._logger.warning("%s: %s", self._clip, notice)
