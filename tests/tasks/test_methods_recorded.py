"""A transfer by a method without an adapter, under Prefect: stages are tasks, and MLflow has a run that names it."""

import shutil
from pathlib import Path

import pytest
from changing import PROMPTS
from mlflow.tracking import MlflowClient

from effivmt.benchmark.method_transfer import ByMethod
from effivmt.benchmark.methods import METHODS
from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt_flows.transfer import transfer


def test_a_method_without_an_adapter_is_recorded(
    tmp_path: Path,
    prefect: None,
    database: Path,
    tiny_params: Params,
    sample_video: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copyfile(database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    clip = Clip(clip="by-method", video=sample_video, caption="a red square", prompts=PROMPTS[:1])
    method = ByMethod(METHODS["flow-motion"], {"adam_steps": 1})
    result, _ = transfer(clip, tiny_params, tmp_path / "store", tmp_path / "out", method=method)
    assert [run.stage for run in result.runs] == ["ingest", "peer_render", "evaluate"]
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = (it for it in client.search_experiments() if it.name == "effivmt")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["method"] == "flow-motion" and run.data.params["flow-motion.adam_steps"] == "1"
    assert run.info.status == "FINISHED" and "model" not in run.data.tags
    assert not client.search_registered_models()
