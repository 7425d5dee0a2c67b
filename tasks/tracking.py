"""MLflow: one run for each transfer that computed something, with its params, curves, metrics and files.

A run that found everything in the store adds none: the earlier run describes the very same artifacts.
"""

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from effivmt.config import Params
from effivmt.errors import EffiVMTError
from effivmt.outputs import Outputs
from effivmt.transfer import Transferred
from tasks.location import database_file, tracking_uri

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "effivmt"
KINDS = {"adapter": "", "baseline": "without_adapter/"}
"""Kind of video in metrics.json -> prefix of its metrics in MLflow."""


@task(name="track", cache_policy=NO_CACHE, persist_result=False)
def track(result: Transferred, params: Params, outputs: Outputs) -> str:
    """Writes the MLflow run of a transfer and returns its id; EffiVMTError where MLflow cannot be written."""
    from mlflow.entities import Metric, Param, RunTag  # two seconds, which a run that is not tracked saves
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    uri, now = tracking_uri(), int(time.time() * 1000)
    tags = {"clip": result.clip.clip, "caption": result.clip.caption, "backbone_digest": result.backbone_digest}
    tags |= {"backbone": result.backbone_id}
    try:
        client = MlflowClient(tracking_uri=uri)
        run = client.create_run(_experiment(client, uri), run_name=result.clip.clip, tags=tags).info.run_id
        status = "FAILED"
        try:
            settings = [Param(name, str(value)) for name, value in flatten(params.model_dump(mode="json"))]
            prompts = [RunTag(f"prompt_{number}", prompt) for number, prompt in enumerate(result.clip.prompts, 1)]
            for start in range(0, max(len(settings), len(prompts)), 100):  # MLflow's limits of one batch
                batch = slice(start, start + 100)
                client.log_batch(run, params=settings[batch], tags=prompts[batch])
            metrics = [Metric(name, value, now, step) for name, value, step in _metrics(result)]
            for start in range(0, len(metrics), 1000):
                client.log_batch(run, metrics=metrics[start : start + 1000])
            for file in (*outputs.videos, outputs.sheet, outputs.heads, outputs.metrics, outputs.report):
                client.log_artifact(run, str(file))
            client.log_artifacts(run, str(outputs.adapter), "adapter")
            status = "FINISHED"
        finally:
            client.set_terminated(run, status)
    except (MlflowException, OSError) as error:
        raise EffiVMTError(
            f"the results are in {outputs.folder}, but MLflow at {uri} cannot record them ({_line(error)}); set "
            "MLFLOW_TRACKING_URI to a working place and run again with --force evaluate"
        ) from error
    return run


def flatten(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted names and values of everything in nested mappings: ("temporal.rank", 16)."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _metrics(result: Transferred) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of all that MLflow plots.

    `loss/<stage>/<name>` by step, from 1; `seconds/<stage>`; `prompt_<n>[/seed_<s>]/[without_adapter/]<metric>`; and
    `mean/[without_adapter/]<metric>` over all videos.
    """
    for stage, curves in result.losses.items():
        for name, losses in curves.items():
            for step, loss in enumerate(losses, 1):
                yield f"loss/{stage}/{name}", loss, step
    for run in result.runs:
        yield f"seconds/{run.stage}", run.seconds, 0
    numbers = {prompt: number for number, prompt in enumerate(result.clip.prompts, 1)}
    several_seeds = len({row["seed"] for row in result.metrics}) > 1
    values: dict[str, list[float]] = {}
    for row in result.metrics:
        seed = f"/seed_{row['seed']}" if several_seeds else ""
        for kind, prefix in KINDS.items():
            for name, value in row.get(kind, {}).items():
                yield f"prompt_{numbers[row['prompt']]}{seed}/{prefix}{name}", value, 0
                values.setdefault(f"mean/{prefix}{name}", []).append(value)
    for name, of_videos in values.items():
        yield name, sum(of_videos) / len(of_videos), 0


def _experiment(client: "MlflowClient", uri: str) -> str:
    """Id of our experiment, made where it is not there yet; files of an SQLite store lie in `mlartifacts` beside it."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        file = database_file(uri)
        try:
            return client.create_experiment(EXPERIMENT, file and (file.parent / "mlartifacts").as_uri())
        except MlflowException:  # another process may have made it in the meantime
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return found.experiment_id


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
