"""MLflow: one run for each out folder of a clip, with its params, curves, metrics, files and registered adapter.

Everything is read from the folder, so it does not matter who made it, nor when.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from effivmt.errors import AdapterError
from effivmt.method.adapter_manifest import read_facts
from effivmt.pipeline.outputs import RECORD, Outputs, prompt_number
from effivmt.versions import code_version
from effivmt_tasks.tracking import registry
from effivmt_tasks.tracking.folders import TrackedRun, read_record, read_tracked, write_tracked
from effivmt_tasks.tracking.location import database_file, public_uri

EXPERIMENT = "effivmt"
_VIEW = {"mlflow.experimentKind": "custom_model_development"}
"""What MLflow's pages open the experiment with: the table of runs, not traces of agents."""


def track_folder(
    client: MlflowClient, uri: str, folder: Path, parent: Callable[[], str | None] = lambda: None
) -> TrackedRun:
    """Records a clip's folder as a run, registers its adapter, if it has one, and writes tracked.json.

    parent: gives the id of the run that a new run is to be a child of. A folder with these very contents that was
    recorded before, from here or elsewhere, gets no second run. Raises MlflowException or OSError where MLflow cannot
    write; the folder is then pending as before. AdapterError where the folder's adapter is damaged.
    """
    record, outputs = read_record(folder / RECORD), Outputs(folder, ())
    adapted = any(name.startswith(f"{outputs.adapter.name}/") for name in record["files"])
    if adapted:
        _check_adapter(outputs)
    made_of, experiment = record["made_of"], experiment_id(client, uri)
    before = read_tracked(folder)
    if before is not None and before.uri == public_uri(uri) and not before.made_of:
        with suppress(MlflowException):  # it may be gone; nothing refers to a run that was not completed
            client.delete_run(before.run_id)
    done = client.search_runs([experiment], f"tags.made_of = '{made_of}' and attributes.status = 'FINISHED'", 1, 1)
    if done:
        run_id = done[0].info.run_id
        _log_files(client, run_id, record, outputs)
    else:
        above = parent()
        tags = _tags(record) | ({MLFLOW_PARENT_RUN_ID: above} if above else {})
        run_id = client.create_run(experiment, run_name=record["clip"]["clip"], tags=tags).info.run_id
        write_tracked(folder, TrackedRun(public_uri(uri), run_id))
        _log(client, run_id, record, outputs)
        client.set_terminated(run_id)
    tracked = TrackedRun(public_uri(uri), run_id, made_of)
    if adapted:
        version = registry.register(client, outputs, record, run_id)
        for name, value in {"model": version.name, "model_version": version.version}.items():
            client.set_tag(run_id, name, value)
        tracked = TrackedRun(public_uri(uri), run_id, made_of, version.name, str(version.version))
    write_tracked(folder, tracked)
    return tracked


def experiment_id(client: MlflowClient, uri: str) -> str:
    """Id of our experiment, created if it does not exist; files of an SQLite store go to `mlartifacts` beside it."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        file = database_file(uri)
        place = (file.parent / "mlartifacts").as_uri() if file else None
        try:
            return client.create_experiment(EXPERIMENT, place, tags=_VIEW)
        except MlflowException:  # another process may have made it in the meantime
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return found.experiment_id


def flatten(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Dotted names and values of everything in nested mappings: ("temporal.rank", 16)."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _check_adapter(outputs: Outputs) -> None:
    """AdapterError where a file of the adapter is damaged; the folder is then no longer taken for up to date."""
    try:
        read_facts(outputs.adapter)
    except AdapterError as error:
        outputs.record.unlink(missing_ok=True)
        fault = str(error).partition(";")[0]
        raise AdapterError(f"{fault}; the next run of the clip writes its folder anew") from error


def _tags(record: Mapping) -> dict[str, str]:
    clip, backbone = record["clip"], record["backbone"]
    tags = {"clip": clip["clip"], "caption": clip["caption"], "made_of": record["made_of"]}
    tags |= {"backbone": backbone["id"], "backbone_digest": backbone["digest"], "code": code_version()}
    tags |= {"method": record["method"]["name"]} if "method" in record else {}
    return tags | {"video": record["video"]["name"], "video_sha256": record["video"]["sha256"]}


def _log(client: MlflowClient, run_id: str, record: Mapping, outputs: Outputs) -> None:
    """Params, tags, metrics and files of a run; the adapter is with the registered model."""
    now = int(time.time() * 1000)
    own = {record["method"]["name"]: record["method"]["params"]} if "method" in record else {}
    settings = [Param(name, str(value)) for name, value in flatten(record["params"] | own)]
    tags = [RunTag(f"prompt_{number}", prompt) for number, prompt in enumerate(record["clip"]["prompts"], 1)]
    tags += [RunTag(f"version/{name}", version) for name, version in record["versions"].items()]
    for start in range(0, max(len(settings), len(tags)), 100):  # MLflow's limits of one batch
        batch = slice(start, start + 100)
        client.log_batch(run_id, params=settings[batch], tags=tags[batch])
    metrics = [Metric(name, value, now, step) for name, value, step in _metrics(record, outputs)]
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])
    _log_files(client, run_id, record, outputs)


def _log_files(client: MlflowClient, run_id: str, record: Mapping, outputs: Outputs) -> None:
    """Uploads the files that the run does not have, or has in another size: its artifact folder may have moved."""
    there = {file.path: file.file_size for file in client.list_artifacts(run_id)}
    for name in [*record["files"], outputs.record.name]:
        path = outputs.folder / name
        if not name.startswith(f"{outputs.adapter.name}/") and there.get(name) != path.stat().st_size:
            client.log_artifact(run_id, str(path))


def _metrics(record: Mapping, outputs: Outputs) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of all that MLflow plots.

    `loss/<stage>/<name>` by step, from 1; `seconds/<stage>`; `prompt_<n>[/seed_<s>]/[without_adapter/]<metric>`; and
    `mean/[without_adapter/]<metric>` over all videos.
    """
    for stage, curves in json.loads(outputs.losses.read_text(encoding="utf-8")).items():
        for name, losses in curves.items():
            for step, loss in enumerate(losses, 1):
                yield f"loss/{stage}/{name}", loss, step
    for stage, timing in record["stages"].items():
        yield f"seconds/{stage}", timing["seconds"], 0
    results = registry.read_results(outputs)
    several_seeds = len({row["seed"] for row in results}) > 1
    for row in results:
        seed = f"/seed_{row['seed']}" if several_seeds else ""
        for name, value in registry.metrics_of(row):
            yield f"prompt_{prompt_number(row['video'])}{seed}/{name}", value, 0
    for name, value in registry.mean_over_videos(results).items():
        yield name, value, 0
