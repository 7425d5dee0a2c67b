"""The Prefect flow of a catalog: a task per clip; a clip that fails stops no other."""

import sys
import time
from pathlib import Path
from typing import cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import as_completed
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from effivmt.catalog import Catalog, read_catalog
from effivmt.config import Params
from effivmt.errors import printable
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.catalog_run import faulty_rows, write_run
from effivmt.pipeline.catalog_table import write_catalog_table
from effivmt.pipeline.outcomes import RunSummary
from effivmt_tasks.artifacts import RunArtifacts
from effivmt_tasks.clips import outcome_of, process, state_data
from effivmt_tasks.cluster import Cluster, release
from effivmt_tasks.tracking.location import tracking_uri
from effivmt_tasks.tracking.recorder import Recorder


def run_catalog_flow(
    catalog: Catalog,
    params: Params,
    store: Path,
    out: Path,
    *,
    force: tuple[str, ...] = (),
    callback: Callback | None = None,
    cluster: Cluster | None = None,
) -> RunSummary:
    """Runs the flow `process_catalog`, clip by clip in this process or on a Dask cluster; returns its summary.

    EffiVMTError where the cluster cannot be used.
    """
    store, out, run = store.resolve(), out.resolve(), process_catalog
    if cluster is not None:
        cluster.check((store, out))
        run = process_catalog.with_options(task_runner=cluster.task_runner())
    callback = callback or Callback()
    remote = cluster is not None
    state = run(catalog, params, store, out, force=force, callback=callback, remote=remote, return_state=True)
    assert isinstance(state, State)  # the types of Prefect allow for a coroutine, which this flow is not
    if isinstance(summary := state_data(state), RunSummary):
        return summary
    return cast(RunSummary, state.result())  # it raises what the flow raised; Prefect's types nest its state


@flow(
    name="catalog",
    flow_run_name="{catalog.name}",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]  # Prefect's runner types are invariant
    persist_result=False,
    validate_parameters=False,
)
def process_catalog(
    catalog: Catalog,
    params: Params,
    store: Path,
    out: Path,
    *,
    force: tuple[str, ...],
    callback: Callback,
    remote: bool,
) -> State:
    """Takes the clips of a catalog through all stages, writes the out folder, and records what is new in MLflow.

    The state, Completed or, where a clip failed, Failed, holds the RunSummary as its data. remote: the tasks run in
    other processes, which the callback cannot reach.
    """
    start, artifacts = time.perf_counter(), RunArtifacts(catalog)
    outcomes = faulty_rows(catalog)
    write_catalog_table(read_catalog(catalog.path), out)
    recorder = Recorder(tracking_uri(), out, catalog.path.name)
    passed = None if remote else callback
    submitted = {process.submit(clip, params, store, out, force=force, callback=passed): clip for clip in catalog.clips}
    for future in as_completed(list(submitted)):
        outcomes.append(outcome_of(submitted[future], future))
        release(future)
        callback.on_clip_end(outcomes[-1])
        if outcomes[-1].status != "failed":
            recorder.record(out / outcomes[-1].clip)
        artifacts.update(outcomes)
    summary = write_run(read_catalog(catalog.path), outcomes, out, time.perf_counter() - start)
    artifacts.close(outcomes, out)
    recorder.close()
    if recorder.message:
        print(printable(recorder.message), file=sys.stderr)
    return (Failed if summary.failed else Completed)(message=summary.message(out), data=summary)
