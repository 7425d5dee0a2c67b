"""The flow of a deployment: everything it needs comes as JSON, and each run reads the catalog anew."""

from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from effivmt.catalog import load_catalog
from effivmt.config import load_params
from effivmt.errors import EffiVMTError
from effivmt.pipeline.catalog_run import CatalogWatch, Outcome
from effivmt.pipeline.selection import select_clips
from effivmt.pipeline.stages import STAGES
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store
from effivmt_flows.catalog import run_catalog, summary
from effivmt_tasks.cluster import choose_cluster

Stage = Literal[STAGES]


@flow(name="nightly", persist_result=False)
def nightly(
    catalog: Path,
    params: Path = Path("params.yaml"),
    overrides: list[str] = [],  # noqa: B006
    store: Path = Path(".effivmt/store"),
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
    other clips are done all the same. Relative paths are relative to the working folder of the process that runs it.
    """
    logger = get_run_logger()
    try:
        settings = load_params(params, tuple(overrides))
        chosen = select_clips(load_catalog(catalog), tuple(only), out if retry_failed else None)
        if not chosen.clips:
            return Completed(message="nothing failed in the last run")
        _ = Workspace(Store(store), settings).folder  # a wrong folder is told before any clip fails for it
        cluster = choose_cluster(runner, address, resource)
        record = run_catalog(chosen, settings, store, out, tuple(force), _Logged(len(chosen.clips)), cluster)
    except EffiVMTError as error:
        reason = " ".join(str(error).split())
        logger.error("%s", reason)
        return Failed(message=reason)
    line = summary(record, out.resolve())
    logger.log(40 if record["failed"] else 20, "%s", line)
    return (Failed if record["failed"] else Completed)(message=line)


class _Logged(CatalogWatch):
    """One line a clip in the log of the flow run."""

    def __init__(self, total: int) -> None:
        self._logger, self._ended, self._total = get_run_logger(), 0, total

    def ended(self, outcome: Outcome) -> None:
        self._ended += 1
        reason = f": {outcome.stage}: {outcome.reason}" if outcome.reason else ""
        line = f"[{self._ended}/{self._total}] {outcome.clip}: {outcome.status} in {outcome.seconds:.1f} s{reason}"
        (self._logger.error if reason else self._logger.info)("%s", line)
