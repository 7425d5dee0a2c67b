"""MLflow's model registry: every recorded adapter is a version of the registered model `effivmt-<clip>`.

A model is of one video, since its versions compete. Another video whose clip has the same id, as of another folder or
catalog, has the model `effivmt-<clip>-<digest>`, with the first 8 digits of the video's SHA-256.

The alias `champion` moves only to a version that is strictly better on the declared metric, the mean of `DECLARED` over
the version's videos; every other newcomer is the `challenger`. A version without that metric is never champion.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow.pyfunc
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from effivmt.evaluation.metrics import METRICS, mean_metrics
from effivmt.pipeline.outputs import Outputs
from effivmt.store.digests import sha256_file
from effivmt.versions import __version__, code_version
from effivmt_tasks.tracking.pull import ADAPTER, ADAPTER_SHA256, MODEL_FOLDER

DECLARED = "foreground_motion_fidelity"
CHAMPION, CHALLENGER = "champion", "challenger"
INTERFACE, INTERFACE_VERSION = "interface", "3"
"""Tag of a version: which public interface of `effivmt` its pyfunc code uses. Those of version 0.1 have no such tag."""
VIDEO_SHA256 = "video_sha256"
"""Tag of a version: which video it was made of."""
PREFIXES = {"adapter": "", "baseline": "without_adapter/"}
"""Kind of video in metrics.json -> prefix of its metrics in MLflow."""
_DESCRIPTION = 5000
"""Characters that MLflow's database keeps of a description."""

warnings.filterwarnings("ignore", "(?s).*An input example was not provided")  # it would be run, which takes a backbone


def register(client: MlflowClient, outputs: Outputs, record: Mapping, run_id: str) -> ModelVersion:
    """The registered version of a clip's adapter, made from the run's files unless the registry has these very bytes.

    Metrics and alias follow the newest measurement. Raises MlflowException or OSError where MLflow cannot write.
    """
    name, digest = _model_of(client, record), sha256_file(outputs.adapter / "adapter.json")
    means = {metric: str(value) for metric, value in mean_over_videos(read_results(outputs)).items()}
    same = f"name = '{name}' and tags.{ADAPTER_SHA256} = '{digest}' and tags.{INTERFACE} = '{INTERFACE_VERSION}'"
    known = client.search_model_versions(same, max_results=1)
    if known:
        version = known[0]
        assert version.run_id  # every version with these tags is made below, of a run
        if not _holds_adapter(client, version.run_id, outputs):
            _upload(client, version.run_id, outputs, record)
        for metric, value in means.items():
            if version.tags.get(metric) != value:
                client.set_model_version_tag(name, version.version, metric, value)
        for metric in version.tags.keys() - means.keys():
            if metric.startswith("mean/"):  # it cannot be measured any more
                client.delete_model_version_tag(name, version.version, metric)
    else:
        _upload(client, run_id, outputs, record)
        _ensure_model(client, name, record["clip"])
        version = client.create_model_version(
            name,
            f"{client.get_run(run_id).info.artifact_uri}/{MODEL_FOLDER}",
            run_id,
            tags=_tags(record) | {ADAPTER_SHA256: digest, INTERFACE: INTERFACE_VERSION} | means,
            description=(outputs.adapter / "README.md").read_text(encoding="utf-8")[:_DESCRIPTION],
        )
    _place_alias(client, version, means)
    return version


def _upload(client: MlflowClient, run_id: str, outputs: Outputs, record: Mapping) -> None:
    with TemporaryDirectory(prefix="effivmt-") as temporary:
        save_model(Path(temporary) / MODEL_FOLDER, outputs.adapter, record["params"])
        client.log_artifacts(run_id, str(Path(temporary) / MODEL_FOLDER), MODEL_FOLDER)


def _holds_adapter(client: MlflowClient, run_id: str, outputs: Outputs) -> bool:
    """Whether the artifact store still has the adapter of a run: it may have moved, or been emptied."""
    folder = f"{MODEL_FOLDER}/{ADAPTER}"
    there = {file.path: file.file_size for file in client.list_artifacts(run_id, folder)}
    return all(there.get(f"{folder}/{path.name}") == path.stat().st_size for path in outputs.adapter.iterdir())


def save_model(folder: Path, adapter: Path, params: Mapping) -> None:
    """Writes a pyfunc model folder: the code, the adapter's files, and the params that a rendering needs.

    Input: prompts (strings, one unnamed column); output: an mp4 (bytes) each; params: seed, the two strengths, the
    motion boundary, and images, in base64, that the videos begin with, one for each prompt or none.
    """
    render = params["render"]
    choices = [
        ParamSpec("seed", DataType.long, render["seeds"][0]),
        ParamSpec("appearance_strength", DataType.double, float(render["appearance_strength"])),
        ParamSpec("motion_strength", DataType.double, float(render["motion_strength"])),
        ParamSpec("motion_boundary", DataType.double, float(render["motion_boundary"])),
        ParamSpec("images", DataType.string, [], shape=(-1,)),
    ]
    sections = {name: params[name] for name in ("backbone", "ingest", "sampling")}
    sections["backbone"] = sections["backbone"] | {"device": "auto"}  # the user's machine may be another one
    mlflow.pyfunc.save_model(
        str(folder),
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={"adapter": str(adapter)},
        signature=ModelSignature(Schema([ColSpec("string")]), Schema([ColSpec("binary")]), ParamSchema(choices)),
        pip_requirements=[f"effivmt[full]=={__version__}"],
        model_config=sections | {"render": render | {"baseline": False}},
    )


def model_name(clip: str) -> str:
    """Name of a clip's registered model, unless that is another video's."""
    return f"effivmt-{clip}"


def _model_of(client: MlflowClient, record: Mapping) -> str:
    """Name of the registered model of a record's clip and video."""
    name, video = model_name(record["clip"]["clip"]), record["video"]["sha256"]
    of_name = f"name = '{name}'"
    ours = client.search_model_versions(f"{of_name} and tags.{VIDEO_SHA256} = '{video}'", max_results=1)
    if ours or not client.search_model_versions(of_name, max_results=1):
        return name
    return f"{name}-{video[:8]}"


def read_results(outputs: Outputs) -> list[dict]:
    """The results of metrics.json: per video its prompt, seed, and metrics by kind."""
    return json.loads(outputs.metrics.read_text(encoding="utf-8"))["results"]


def metrics_of(row: Mapping) -> Iterator[tuple[str, float]]:
    """Names (with the prefix of their kind) and values of one video's metrics, without those not measurable."""
    for kind, prefix in PREFIXES.items():
        for name, value in row.get(kind, {}).items():
            if value is not None:
                yield f"{prefix}{name}", value


def mean_over_videos(results: Sequence[Mapping]) -> dict[str, float]:
    """`mean/<metric>` and `mean/without_adapter/<metric>` over all videos that have the metric."""
    return {f"mean/{name}": value for name, value in mean_metrics(dict(metrics_of(row)) for row in results).items()}


def _place_alias(client: MlflowClient, version: ModelVersion, means: Mapping[str, str]) -> None:
    """Makes a version champion or challenger.

    The champion stays where the version is no better than it, unless the version is the same adapter, registered anew.
    """
    name, number, metric = version.name, str(version.version), f"mean/{DECLARED}"
    aliases = client.get_registered_model(name).aliases
    holder = aliases.get(CHAMPION)
    if holder is not None and str(holder) == number:
        return
    held = {} if holder is None else client.get_model_version(name, str(holder)).tags
    again = held.get(ADAPTER_SHA256) == version.tags[ADAPTER_SHA256]
    better = metric in means and (
        holder is None or (metric in held and _better(float(means[metric]), float(held[metric])))
    )
    if again or better:
        client.set_registered_model_alias(name, CHAMPION, number)
        if str(aliases.get(CHALLENGER)) == number:
            client.delete_registered_model_alias(name, CHALLENGER)
    else:
        client.set_registered_model_alias(name, CHALLENGER, number)


def _better(new: float, old: float) -> bool:
    return new > old if METRICS[DECLARED].better == "higher" else new < old


def _tags(record: Mapping) -> dict[str, str]:
    clip, backbone = record["clip"], record["backbone"]
    tags = {"clip": clip["clip"], "caption": clip["caption"], VIDEO_SHA256: record["video"]["sha256"]}
    tags |= {"backbone": backbone["id"], "backbone_digest": backbone["digest"]}
    tags |= {"method": record["method"]["name"]} if "method" in record else {}
    return tags | {"code": code_version(), "declared_metric": f"mean/{DECLARED}"}


def _ensure_model(client: MlflowClient, name: str, clip: Mapping) -> None:
    best = f"best version: {name}@{CHAMPION}, by the mean of {DECLARED} over its videos"
    description = f"Motion of the clip {clip['clip']}: {clip['caption']} ({best})"
    try:
        client.create_registered_model(name, {"clip": clip["clip"]}, description[:_DESCRIPTION])
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
