"""A transfer under Prefect, twice: what Prefect shows of it and what MLflow keeps."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from changing import PROMPTS, STEPS
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import EffiVMTError, VideoError
from effivmt.pipeline.outputs import Outputs
from effivmt.pipeline.stages import STAGES
from effivmt.pipeline.transfer import TransferResult
from effivmt_flows.transfer import transfer
from effivmt_tasks.tracking.location import check_writable
from effivmt_tasks.tracking.runs import flatten


@dataclass
class Runs:
    """A transfer done twice and one that fails, with what the engines recorded of them."""

    folder: Path
    clip: Clip
    params: Params
    first: tuple[TransferResult, Outputs]
    second: tuple[TransferResult, Outputs]
    flow_runs: list[FlowRun]
    """In the order of their start: first, second, failed."""
    states: list[dict[str, str]]
    """For each flow run, task -> name of its state."""
    mlflow: MlflowClient
    mlflow_runs: list[Run]


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, prefect: None, database: Path, tiny_params: Params, sample_video: Path
) -> Iterator[Runs]:
    folder, params = tmp_path_factory.mktemp("engine"), tiny_params
    clip = Clip(clip="zigzag", video=sample_video, caption="a red square on a navy background", prompts=PROMPTS)
    shutil.copyfile(database, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        first, second = (transfer(clip, params, folder / "store", folder / "out") for _ in range(2))
        with pytest.raises(VideoError, match=r"gone\.mp4 does not exist"):
            gone = clip.model_copy(update={"video": folder / "gone.mp4"})
            transfer(gone, params, folder / "store", folder / "out")
        with get_client(sync_client=True) as client:
            found = [run for run in client.read_flow_runs() if run.name == "zigzag"]
            flow_runs = sorted(found, key=lambda run: run.start_time)
            states = [_states(client, run, tasks) for run, tasks in zip(flow_runs, (6, 6, 1), strict=True)]
    mlflow = MlflowClient(tracking_uri=uri)
    experiment = mlflow.get_experiment_by_name("effivmt")
    found = list(mlflow.search_runs([experiment.experiment_id]))
    yield Runs(folder, clip, params, first, second, flow_runs, states, mlflow, found)


def test_prefect_shows_a_task_for_every_stage(runs: Runs) -> None:
    assert runs.states[0] == dict.fromkeys(STAGES, "Completed")
    assert [run.state_name for run in runs.flow_runs] == ["Completed", "Completed", "Failed"]
    assert {run.name for run in runs.flow_runs} == {"zigzag"}
    assert runs.flow_runs[0].parameters["clip"]["prompts"] == list(PROMPTS)
    assert runs.flow_runs[0].parameters["params"]["temporal"]["steps"] == STEPS["temporal"]


def test_second_run_is_cached_and_not_tracked(runs: Runs) -> None:
    assert runs.states[1] == dict.fromkeys(STAGES, "Cached")
    assert not runs.first[0].cached and runs.second[0].cached
    assert [a.key for run in runs.first[0].runs for a in run.artifacts] == [
        a.key for run in runs.second[0].runs for a in run.artifacts
    ]
    assert len(runs.mlflow_runs) == 1


def test_failure_is_shown_where_it_happened(runs: Runs) -> None:
    assert runs.states[2] == {"ingest": "Failed"}
    assert "gone.mp4 does not exist" in runs.flow_runs[2].state.message


def test_mlflow_keeps_params_and_tags(runs: Runs) -> None:
    (run,) = runs.mlflow_runs
    assert (run.info.run_name, run.info.status) == ("zigzag", "FINISHED")
    assert run.data.params == {name: str(value) for name, value in flatten(runs.params.model_dump(mode="json"))}
    assert run.data.params["temporal.steps"] == "3" and run.data.params["render.seeds"] == "[0]"
    kept = {name: run.data.tags[name] for name in ("clip", "caption", "backbone_digest", "prompt_1", "prompt_2")}
    assert kept == {
        "clip": "zigzag",
        "caption": runs.clip.caption,
        "backbone_digest": runs.first[0].backbone["digest"],
        "prompt_1": PROMPTS[0],
        "prompt_2": PROMPTS[1],
    }


def test_mlflow_keeps_every_step_of_the_losses(runs: Runs) -> None:
    (run,) = runs.mlflow_runs
    curves = {"spatial/denoising": "spatial", "temporal/denoising": "temporal", "temporal/motion": "temporal"}
    for name, stage in curves.items():
        history = runs.mlflow.get_metric_history(run.info.run_id, f"loss/{name}")
        assert [point.step for point in history] == list(range(1, STEPS[stage] + 1))
        assert [point.value for point in history] == runs.first[0].losses[stage][name.split("/")[1]]


def test_mlflow_keeps_metrics_with_and_without_the_adapter(runs: Runs) -> None:
    (run,), rows = runs.mlflow_runs, runs.first[0].metrics
    for number, row in enumerate(rows, 1):
        for metric in ("text_similarity", "motion_fidelity", "trajectory_error"):
            assert run.data.metrics[f"prompt_{number}/{metric}"] == row["adapter"][metric]
            assert run.data.metrics[f"prompt_{number}/without_adapter/{metric}"] == row["baseline"][metric]
    mean = sum(row["adapter"]["motion_fidelity"] for row in rows) / 2
    assert run.data.metrics["mean/motion_fidelity"] == pytest.approx(mean)
    assert {f"seconds/{stage}" for stage in STAGES} <= run.data.metrics.keys()


def test_mlflow_keeps_the_files(runs: Runs) -> None:
    (run,), outputs = runs.mlflow_runs, runs.first[1]
    names = {file.path for file in runs.mlflow.list_artifacts(run.info.run_id)}
    assert names == {
        "video-1.mp4", "video-2.mp4", "video-1-without-adapter.mp4", "video-2-without-adapter.mp4", "reference.mp4",
        "sheet.png", "heads.png", "losses.json", "metrics.json", "transfer.json", "report.html", "model",
    }  # fmt: skip
    kept = Path(runs.mlflow.download_artifacts(run.info.run_id, "model/artifacts/adapter", str(runs.folder)))
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == {
        path.name: path.read_bytes() for path in outputs.adapter.iterdir()
    }
    assert (runs.folder / "mlartifacts").is_dir()  # beside the database, wherever the run was started


def test_database_that_cannot_be_written(tmp_path: Path) -> None:
    check_writable(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(EffiVMTError, match="MLFLOW_TRACKING_URI"):
        check_writable(f"sqlite:///{tmp_path / 'gone' / 'mlflow.db'}")


def _states(client: SyncPrefectClient, run: FlowRun, tasks: int) -> dict[str, str]:
    """Task -> name of its last state, once all of so many tasks have arrived at the server."""
    deadline = time.monotonic() + 60
    while True:
        found = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
        if len(found) == tasks and all(task.state.is_final() for task in found):
            return {task.name.removeprefix("zigzag: "): task.state_name for task in found}
        assert time.monotonic() < deadline, f"the server has {len(found)} of {tasks} task runs"
        time.sleep(0.2)
