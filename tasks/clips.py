"""One Prefect task per clip that has work to do; within it every stage is a task of its own."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, PrefectWrappedFuture
from prefect.logging import get_run_logger
from prefect.results import ResultRecord
from prefect.states import Completed, Failed

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import DamageError
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.catalog_run import process_clip
from effivmt.pipeline.outcomes import ClipOutcome
from effivmt.pipeline.transfer import TransferMethod, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt_tasks.stages import calls_for
from effivmt_tasks.stores import open_store

_workspaces: dict[tuple[Path, str, bool], Workspace] = {}
"""The workspaces of this process by store and params: the backbone is loaded once per process, not once per task."""
_lock = threading.Lock()


@task(name="clip", task_run_name="{clip.clip}", cache_policy=NO_CACHE, persist_result=False)
def process(
    clip: Clip,
    params: Params,
    store: Path,
    out: Path,
    *,
    force: tuple[str, ...] = (),
    callback: Callback | None = None,
    method: TransferMethod = run_clip,
) -> State:
    """Takes one clip through all stages; the state, Completed, Cached or Failed, holds the ClipOutcome as its data.

    callback: receives everything but the clip's end, which the flow reports, perhaps on another machine. method: by
    default EffiVMT.
    """
    with _workspace(params, store) as shared:
        work = replace(shared, callback=callback or _TaskLog(), force=frozenset(force))
        work.callback.on_clip_start(clip.clip)
        outcome = process_clip(work, clip, out, calls_for(clip.clip), method=method)
    if outcome.status == "failed":
        return Failed(message=f"{outcome.stage}: {outcome.reason}", data=outcome)
    return Completed(name="Cached" if outcome.status == "hit" else None, data=outcome)


class _TaskLog(Callback):
    """Writes what was damaged in the store, and notices, to the log of the task run."""

    def __init__(self) -> None:
        self._clip = ""

    def on_clip_start(self, clip: str) -> None:
        self._clip = clip

    def on_damage(self, damage: DamageError) -> None:
        get_run_logger().warning("%s: %s", self._clip, damage)

    def on_notice(self, notice: str) -> None:
        get_run_logger().warning("%s: %s", self._clip, notice)


@contextmanager
def _workspace(params: Params, store: Path) -> Iterator[Workspace]:
    """This process's workspace for these params and this store, used by one thread at a time.

    A stage changes the backbone that it tunes: where a worker has several threads, the others wait.
    """
    with _lock:
        key = (store.resolve(), params.model_dump_json(), params.preview)
        if key not in _workspaces:
            _workspaces[key] = Workspace(open_store(store), params)  # a wrong backbone fails the clip, in its stage
        yield _workspaces[key]


def state_data(state: State) -> Any:
    """The data of a task's or flow's final state; the exception where it raised one."""
    return state.data.result if isinstance(state.data, ResultRecord) else state.data


def outcome_of(clip: Clip, future: PrefectFuture[State]) -> ClipOutcome:
    """Waits for a task `process` and returns its outcome; a task that ended without one has failed."""
    assert isinstance(future, PrefectWrappedFuture)  # those of threads and of Dask are
    future.wait()
    fault: BaseException | str | None
    try:
        fault = future.wrapped_future.exception()
    except CancelledError:
        fault = "the task was cancelled, or the cluster that ran it is gone"
    if fault is not None:
        reason = f"the task ended without a result: {' '.join(str(fault).split()) or type(fault).__name__}"
        return ClipOutcome(clip.clip, "failed", 0.0, {}, stage="task", reason=reason)
    state = future.state
    if isinstance(outcome := state_data(state), ClipOutcome):
        return outcome
    reason = f"{state.name}: {state.message or 'no message'}"
    return ClipOutcome(clip.clip, "failed", 0.0, {}, stage="task", reason=reason)
