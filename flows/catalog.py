"""The Prefect flow of a catalog: every clip's chain is a task, and one clip's failure never stops the others."""

import time
from pathlib import Path

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from effivmt.batch import Outcome, write_run
from effivmt.catalog import Catalog, Clip, load_catalog
from effivmt.config import Params
from effivmt.inventory import write_inventory
from tasks.clips import outcome_of, process


@flow(
    name="catalog",
    flow_run_name="{catalog.path.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),
    persist_result=False,
    validate_parameters=False,
)
def run_catalog(
    catalog: Catalog, params: Params, store: Path, out: Path, force: tuple[str, ...] = (), watch=None
) -> dict[str, object]:
    """Takes the clips of a catalog through all stages and writes the folder `out`; returns what run.json holds."""
    start = time.perf_counter()
    write_inventory(catalog, out)
    submitted = [(clip, process.submit(clip, params, store, out, force, watch)) for clip in catalog.clips]
    outcomes = [_ended(clip, future) for clip, future in submitted]
    return write_run(load_catalog(catalog.path), outcomes, out, time.perf_counter() - start)


def _ended(clip: Clip, future: PrefectFuture) -> Outcome:
    future.wait()
    return outcome_of(clip, future.state)
