"""One Prefect task a stage. The store decides what is done already; Prefect shows it, as a state named Cached."""

import functools
from collections.abc import Callable

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed

from effivmt.pipeline import stages
from effivmt.pipeline.transfer import artifacts_of


def call_task(function: Callable[..., object], *inputs: object) -> object:
    """Runs a function of `effivmt.pipeline.stages` as its Prefect task (a `Call` of `effivmt.pipeline.transfer`), within a flow.

    Raises what the function raises.
    """
    return TASKS[function](*inputs, return_state=True).result()


def _task(function: Callable[..., object]) -> Task:
    """A task that keeps no results of its own: Prefect's cache would call a path to a deleted file a hit."""

    @functools.wraps(function)
    def run(*inputs: object) -> object | State:
        result = function(*inputs)
        if all(artifact.cached for artifact in artifacts_of(result)):
            return Completed(name="Cached", message="The store had it.", data=result)
        return result

    return task(run, name=function.__name__, cache_policy=NO_CACHE, persist_result=False)


TASKS = {function: _task(function) for function in map(vars(stages).__getitem__, stages.STAGES)}
"""The task of every stage function."""
