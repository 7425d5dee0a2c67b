"""One Prefect task a clip. Within it every stage that has work to do is a task of its own."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectWrappedFuture
from prefect.results import ResultRecord
from prefect.states import Completed, Failed

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.pipeline.catalog_run import CatalogWatch, Outcome, process_clip
from effivmt.pipeline.plan import plan_clip
from effivmt.pipeline.transfer import directly
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store
from effivmt_tasks.stages import call_task

_workspaces: dict[tuple[str, str], Workspace] = {}
"""Workspaces of this process by store and params: its backbone is loaded once, not once a task."""
_one_at_a_time = threading.Lock()


@task(name="clip", task_run_name="{clip.clip}", cache_policy=NO_CACHE, persist_result=False)
def process(
    clip: Clip, params: Params, store: Path, out: Path, force: tuple[str, ...] = (), watch: CatalogWatch | None = None
) -> State:
    """Takes one clip through all stages; the state, Completed, Cached or Failed, holds the Outcome as its data.

    watch: hears of all but the clip's end, which is for who waits for this task, perhaps on another machine.
    """
    watch = watch or CatalogWatch()
    with workspace(params, store) as work:
        work.progress, work.force = watch.advanced, frozenset(force)
        watch.began(clip.clip)
        call = call_task if any(step.action != "hit" for step in plan_clip(work, clip)) else directly
        outcome = process_clip(work, clip, out, call=call, watch=watch)
    if outcome.status == "failed":
        return Failed(message=f"{outcome.stage}: {outcome.reason}", data=outcome)
    return Completed(name="Cached" if outcome.status == "hit" else None, data=outcome)


@contextmanager
def workspace(params: Params, store: Path) -> Iterator[Workspace]:
    """The one workspace of this process for these params and this store, lent to one thread at a time.

    A stage changes the backbone that it tunes: where a worker has several threads, the others wait.
    """
    with _one_at_a_time:
        key = (str(store.resolve()), params.model_dump_json())
        if key not in _workspaces:
            _workspaces[key] = Workspace(Store(store), params)
        yield _workspaces[key]


def held_by(state: State) -> object:
    """What a task or a flow left in its final state, well ended or failed; its exception where it raised one."""
    return state.data.result if isinstance(state.data, ResultRecord) else state.data


def outcome_of(clip: Clip, future: PrefectWrappedFuture) -> Outcome:
    """Waits for a task `process` and returns its outcome; a task that died without one has failed."""
    future.wait()
    try:
        fault = future.wrapped_future.exception()
    except CancelledError:
        fault = "the task was cancelled, or the cluster that ran it is gone"
    if fault is not None:
        reason = f"the task ended without a result: {' '.join(str(fault).split()) or type(fault).__name__}"
        return Outcome(clip.clip, "failed", 0.0, {}, stage="task", reason=reason)
    state = future.state
    if isinstance(outcome := held_by(state), Outcome):
        return outcome
    return Outcome(clip.clip, "failed", 0.0, {}, stage="task", reason=f"{state.name}: {state.message or 'no message'}")
