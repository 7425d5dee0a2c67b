"""One Prefect task a clip. Within it every stage that has work to do is a task of its own."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.results import ResultRecord
from prefect.states import Completed, Failed

from effivmt.batch import CatalogWatch, Outcome, plan_clip, process_clip
from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.stages import Workspace
from effivmt.store import Store
from effivmt.transfer import directly
from tasks.stages import call_task

_workspaces: dict[tuple[str, str], Workspace] = {}
"""Workspaces of this process by store and params: its backbone is loaded once, not once a task."""


@task(name="clip", task_run_name="{clip.clip}", cache_policy=NO_CACHE, persist_result=False)
def process(
    clip: Clip, params: Params, store: Path, out: Path, force: tuple[str, ...] = (), watch: CatalogWatch | None = None
) -> State:
    """Takes one clip through all stages; the state, Completed, Cached or Failed, holds the Outcome as its data."""
    watch = watch or CatalogWatch()
    work = workspace(params, store)
    work.progress, work.force = watch.advanced, frozenset(force)
    watch.began(clip.clip)
    call = call_task if any(step.action != "hit" for step in plan_clip(work, clip)) else directly
    outcome = process_clip(work, clip, out, call=call, watch=watch)
    watch.ended(outcome)
    if outcome.status == "failed":
        return Failed(message=f"{outcome.stage}: {outcome.reason}", data=outcome)
    return Completed(name="Cached" if outcome.status == "hit" else None, data=outcome)


def workspace(params: Params, store: Path) -> Workspace:
    """The one workspace of this process for these params and this store."""
    key = (str(store.resolve()), params.model_dump_json())
    if key not in _workspaces:
        _workspaces[key] = Workspace(Store(store), params)
    return _workspaces[key]


def outcome_of(clip: Clip, state: State) -> Outcome:
    """The outcome in a final state of `process`; a task that died without one has failed."""
    data = state.data.result if isinstance(state.data, ResultRecord) else state.data
    if isinstance(data, Outcome):
        return data
    return Outcome(clip.clip, "failed", 0.0, {}, stage="task", reason=f"{state.name}: {state.message or 'no message'}")
