"""The Prefect flow of a catalog: every clip's chain is a task, and one clip's failure never stops the others."""

import sys
import time
from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import as_completed
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from effivmt.catalog import Catalog, load_catalog
from effivmt.config import Params
from effivmt.pipeline.catalog_run import QUARANTINE, CatalogWatch, write_run
from effivmt.pipeline.catalog_table import write_inventory
from effivmt_tasks.artifacts import RunPage
from effivmt_tasks.clips import held_by, outcome_of, process
from effivmt_tasks.cluster import Cluster, release
from effivmt_tasks.tracking.location import tracking_uri
from effivmt_tasks.tracking.recorder import Recorder


def run_catalog(
    catalog: Catalog,
    params: Params,
    store: Path,
    out: Path,
    force: tuple[str, ...] = (),
    watch: CatalogWatch | None = None,
    cluster: Cluster | None = None,
) -> dict[str, object]:
    """Runs the flow `take_clips` here, clip by clip, or on a Dask cluster; returns what run.json holds.

    Raises EffiVMTError where the cluster cannot be used.
    """
    store, out, taking = store.resolve(), out.resolve(), take_clips
    if cluster is not None:
        cluster.check((store, out))
        taking = take_clips.with_options(task_runner=cluster.task_runner())
    state = taking(catalog, params, store, out, force, watch or CatalogWatch(), cluster is not None, return_state=True)
    return record if isinstance(record := held_by(state), dict) else state.result()


@flow(
    name="catalog",
    flow_run_name="{catalog.path.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),
    persist_result=False,
    validate_parameters=False,
)
def take_clips(
    catalog: Catalog,
    params: Params,
    store: Path,
    out: Path,
    force: tuple[str, ...],
    watch: CatalogWatch,
    elsewhere: bool,
) -> State:
    """Takes the clips of a catalog through all stages and writes the folder `out`; whatever is new goes to MLflow, too.

    The state, Completed or, where a clip failed, Failed, holds what run.json holds as its data. elsewhere: the tasks
    run in other processes, where `watch` cannot be.
    """
    start, outcomes, page = time.perf_counter(), [], RunPage(catalog)
    write_inventory(load_catalog(catalog.path), out)
    recorder = Recorder(tracking_uri(), out, catalog.path.name)
    inside = None if elsewhere else watch
    submitted = {process.submit(clip, params, store, out, force, inside): clip for clip in catalog.clips}
    for future in as_completed(list(submitted)):
        outcomes.append(outcome_of(submitted[future], future))
        release(future)
        watch.ended(outcomes[-1])
        if outcomes[-1].status != "failed":
            recorder.record(out / outcomes[-1].clip)
        page.update(outcomes)
    record = write_run(load_catalog(catalog.path), outcomes, out, time.perf_counter() - start)
    page.close(outcomes, out)
    recorder.close()
    if recorder.message:
        print(recorder.message, file=sys.stderr)
    return (Failed if record["failed"] else Completed)(message=summary(record, out), data=record)


def summary(record: dict[str, object], out: Path) -> str:
    """One line on a run: how many clips were done, hit or failed, and where the reasons lie."""
    counts = ", ".join(f"{record[status]} {status}" for status in ("done", "hit", "failed"))
    return f"{counts} in {record['seconds']:.1f} s" + (f"; reasons: {out / QUARANTINE}" if record["failed"] else "")
