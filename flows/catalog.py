"""The Prefect flow of a catalog: a task per clip that has work to do; a clip that fails stops no other."""

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import as_completed
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from effivmt.catalog import Catalog, read_catalog
from effivmt.config import Params
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.catalog_run import faulty_rows, remaining, write_run
from effivmt.pipeline.catalog_table import write_catalog_table
from effivmt.pipeline.outcomes import ClipOutcome, RunSummary
from effivmt.pipeline.transfer import TransferMethod, run_clip
from effivmt_flows.recording import say_unrecorded
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
    hits: Sequence[ClipOutcome] = (),
    force: tuple[str, ...] = (),
    callback: Callback | None = None,
    cluster: Cluster | None = None,
    method: TransferMethod = run_clip,
) -> RunSummary:
    """Runs a flow named by catalog and time, clip by clip in this process or on a Dask cluster; returns its summary.

    hits: the outcomes of clips that the store has. The flow is Completed or, where a clip failed, Failed. EffiVMTError
    where the cluster cannot be used.
    """
    asked, store, out, given = catalog, store.resolve(), out.resolve(), callback or Callback()

    def process_catalog(catalog: str, params: Params, store: Path, out: Path, *, force: tuple[str, ...]) -> State:
        """Its parameters are what Prefect shows; a catalog of a thousand clips is not sent to the server."""
        remote = cluster is not None
        summary = process_clips(
            asked, params, store, out, hits=hits, force=force, callback=given, remote=remote, method=method
        )
        return (Failed if summary.failed else Completed)(message=summary.message(out), data=summary)

    if cluster is not None:
        cluster.check((store, out))
    runner: TaskRunner[Any] = cluster.task_runner() if cluster else ThreadPoolTaskRunner(max_workers=1)
    run = flow(
        name="catalog",
        flow_run_name=lambda: run_name(catalog.path),
        task_runner=runner,
        persist_result=False,
        validate_parameters=False,
    )(process_catalog)
    state = run(str(catalog.path), params, store, out, force=force, return_state=True)
    assert isinstance(state, State)  # the types of Prefect allow for a coroutine, which this flow is not
    if isinstance(summary := state_data(state), RunSummary):
        return summary
    return cast(RunSummary, state.result())  # it raises what the flow raised; Prefect's types nest its state


def run_name(catalog: Path) -> str:
    """The name of a flow run that begins now: "films.csv 2026-11-27 02:00"."""
    return f"{catalog.name} {datetime.now():%Y-%m-%d %H:%M}"


def process_clips(
    catalog: Catalog,
    params: Params,
    store: Path,
    out: Path,
    *,
    hits: Sequence[ClipOutcome],
    force: tuple[str, ...],
    callback: Callback,
    remote: bool = False,
    method: TransferMethod = run_clip,
) -> RunSummary:
    """Within a flow, takes the clips of a catalog that are no hits through all stages, as tasks of its task runner.

    Writes the out folder, and records what is new in MLflow. remote: the tasks run in other processes, which the
    callback cannot reach.
    """
    start, artifacts = time.perf_counter(), RunArtifacts(catalog)
    outcomes = [*faulty_rows(catalog), *hits]
    write_catalog_table(read_catalog(catalog.path), out)
    recorder = Recorder(tracking_uri(), out, catalog.path.name)
    passed = None if remote else callback
    submitted = {
        process.submit(clip, params, store, out, force=force, callback=passed, method=method): clip
        for clip in remaining(catalog, outcomes)
    }
    for hit in hits:
        recorder.record(out / hit.clip)
    for future in as_completed(list(submitted)):
        outcomes.append(outcome_of(submitted[future], future))
        release(future)
        callback.on_clip_end(outcomes[-1])
        if outcomes[-1].status != "failed":
            recorder.record(out / outcomes[-1].clip)
        artifacts.update(outcomes)
    seconds = time.perf_counter() - start + sum(hit.seconds for hit in hits)
    summary = write_run(read_catalog(catalog.path), outcomes, out, seconds)
    artifacts.close(outcomes, out)
    recorder.close()
    say_unrecorded(recorder)
    return summary
