"""One Prefect task per stage. The store decides what is done; a store hit ends in a Completed state named Cached."""

import functools
from collections.abc import Callable
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from effivmt.pipeline import stages
from effivmt.pipeline.runner import P, Result, artifacts_of


def call_as_task(stage: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Calls a function of `effivmt.pipeline.stages` as a Prefect task, in a flow; raises what the stage raises."""
    state = TASKS[stage.__name__](*args, return_state=True, **kwargs)
    assert isinstance(state, State)  # the types of Prefect allow for a coroutine, which no stage is
    return state.result()


def _task(stage: Callable[..., Any]) -> Task[..., Any]:
    """A task without a result cache: Prefect's own would call a path to a deleted file a hit."""

    @functools.wraps(stage)
    def run(*args: Any, **kwargs: Any) -> Any:
        result = stage(*args, **kwargs)
        if all(artifact.cached for artifact in artifacts_of(result)):
            return Completed(name="Cached", message="The store had the result.", data=result)
        return result

    make_task = task(name=stage.__name__, cache_policy=NO_CACHE, persist_result=False)
    return make_task(run)


TASKS = {name: _task(vars(stages)[name]) for name in (*stages.STAGES, stages.MASK)}
"""The task of every stage, by the stage's name."""
