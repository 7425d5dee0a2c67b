"""One Prefect task per stage. The store decides what is done; a store hit ends in a Completed state named Cached."""

import functools
import traceback
from collections.abc import Callable
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import task_run
from prefect.states import Completed, Failed

from effivmt.errors import in_one_line
from effivmt.pipeline.runner import CallStage, P, Result, artifacts_of


def calls_for(clip: str) -> CallStage:
    """How a clip's stages are called as Prefect tasks that name the clip, in a flow or a task."""

    def call(stage: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        run = _task(stage).with_options(task_run_name=f"{clip}: {stage.__name__}")
        state = run(*args, return_state=True, **kwargs)
        assert isinstance(state, State)  # the types of Prefect allow for a coroutine, which no stage is
        return state.result()

    return call


@functools.cache
def _task(stage: Callable[..., Any]) -> Task[..., Any]:
    """The task of a stage, without a result cache: Prefect's own would call a path to a deleted file a hit.

    Its log has one line for an error; the traceback is for the level DEBUG. Each line names the run: clip and stage.
    """

    @functools.wraps(stage)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            result = stage(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  (the state holds it, and `State.result` raises it)
            get_run_logger().debug("%s", traceback.format_exc())
            return Failed(message=f"{task_run.name}: {in_one_line(error)}", data=error)
        if all(artifact.cached for artifact in artifacts_of(result)):
            return Completed(name="Cached", message=f"{task_run.name}: the store had the result", data=result)
        return Completed(message=f"{task_run.name}: done", data=result)

    make_task = task(name=stage.__name__, cache_policy=NO_CACHE, persist_result=False)
    return make_task(run)
