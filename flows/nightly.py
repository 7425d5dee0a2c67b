"""The flow of a deployment: all its parameters are JSON, and every run reads the catalog again."""

import logging
from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from effivmt.catalog import list_faults, list_ignored, read_catalog
from effivmt.config import load_params
from effivmt.errors import DamageError, EffiVMTError, in_one_line
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.outcomes import ClipOutcome
from effivmt.pipeline.selection import select_clips, set_long_texts_aside
from effivmt.pipeline.workspace import open_workspace
from effivmt.store import DEFAULT_STORE
from effivmt_flows.catalog import run_catalog_flow
from effivmt_tasks.cluster import choose_cluster
from effivmt_tasks.outage import expect_outage
from effivmt_tasks.stores import open_store

Stage = Literal["ingest", "mask", "heads", "spatial", "temporal", "render", "evaluate"]
"""The stages by name, as the schema of the deployment lists them."""


@flow(name="nightly", persist_result=False)
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
    other clips are processed all the same. Relative paths are relative to the working folder of the process.
    """
    logger = get_run_logger()
    expect_outage()
    try:
        settings = load_params(params, overrides)
        chosen = select_clips(read_catalog(catalog), tuple(only), out if retry_failed else None)
        if not chosen.clips:
            return Completed(message="nothing failed in the last run")
        work = open_workspace(
            settings, open_store(store)
        )  # a wrong backbone folder ends the run before any clip fails for it
        chosen = set_long_texts_aside(work, chosen)
        if chosen.faults:
            logger.error("%s", list_faults(chosen))
        if ignored := list_ignored(chosen):
            logger.warning("%s", ignored)
        if work.scorer.fault:
            logger.warning("%s", work.scorer.fault)
        cluster = choose_cluster(runner, address, resource)
        callback = _LoggingCallback(len(chosen.clips))
        summary = run_catalog_flow(chosen, settings, store, out, force=tuple(force), callback=callback, cluster=cluster)
    except EffiVMTError as error:
        reason = in_one_line(error)
        logger.error("%s", reason)
        return Failed(message=reason)
    line = summary.message(out.resolve())
    logger.log(logging.ERROR if summary.failed else logging.INFO, "%s", line)
    return (Failed if summary.failed else Completed)(message=line)


class _LoggingCallback(Callback):
    """Writes to the flow's log: a line per clip, for what was damaged in the store, and for a tuning that diverged."""

    def __init__(self, total: int) -> None:
        self._logger, self._ended, self._total = get_run_logger(), 0, total

    def on_clip_end(self, outcome: ClipOutcome) -> None:
        self._ended += 1
        reason = f": {outcome.stage}: {outcome.reason}" if outcome.reason else ""
        line = f"[{self._ended}/{self._total}] {outcome.clip}: {outcome.status} in {outcome.seconds:.1f} s{reason}"
        (self._logger.error if reason else self._logger.info)("%s", line)

    def on_damage(self, damage: DamageError) -> None:
        """Logs the file and its fault."""
        self._logger.warning("%s", damage)

    def on_divergence(self, notice: str) -> None:
        """Logs what the tuning does next."""
        self._logger.warning("%s", notice)
