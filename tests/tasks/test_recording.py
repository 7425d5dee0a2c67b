"""Catalog runs in MLflow, while its server answers, goes and comes back."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from changing import change
from loopback import Gate, Server
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from effivmt.catalog import load_catalog
from effivmt.config import Params
from effivmt.errors import EffiVMTError
from effivmt_flows.catalog import run_catalog_flow
from effivmt_flows.cli.main import main
from effivmt_flows.transfer import transfer
from effivmt_tasks.tracking.folders import read_tracked
from effivmt_tasks.tracking.location import check_reachable, public_uri
from effivmt_tasks.tracking.pull import ADAPTER, MODEL_FOLDER
from effivmt_tasks.tracking.recorder import Recorder, sync

ADAPTER_PATH = f"{MODEL_FOLDER}/{ADAPTER}"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of the catalog's folder, of which MLflow knows nothing."""
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


def family(uri: str, out: Path) -> tuple[Run, dict[str, Run]]:
    """The catalog's run that the folder's note names, and its children by clip."""
    client, note = MlflowClient(tracking_uri=uri), read_tracked(out)
    experiment = client.get_experiment_by_name("effivmt").experiment_id
    children = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{note.run_id}'")
    return client.get_run(note.run_id), {run.info.run_name: run for run in children}


def count(uri: str) -> int:
    """How many runs there are."""
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name("effivmt")
    return 0 if found is None else len(client.search_runs([found.experiment_id]))


def test_catalog_run_and_a_second_one(
    prefect: None, database: Path, made: Path, out: Path, tiny_params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(database, out.parent / "mlflow.db")
    uri = f"sqlite:///{out.parent / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    catalog = load_catalog(made / "clips.csv")
    record = run_catalog_flow(catalog, tiny_params, made / "store", out)  # all hits, by a run without an engine
    assert (record.hit, record.failed) == (2, 1)
    parent, children = family(uri, out)
    assert (parent.info.run_name, parent.info.status) == ("clips.csv", "FAILED")  # a clip has
    assert parent.data.metrics["hit"] == 2 and parent.data.metrics["failed"] == 1
    (dataset,) = parent.inputs.dataset_inputs
    assert dataset.dataset.name == "clips.csv" and str(made) not in dataset.dataset.source
    assert dataset.dataset.digest == parent.data.tags["catalog_digest"]
    files = {file.path for file in MlflowClient(tracking_uri=uri).list_artifacts(parent.info.run_id)}
    assert files >= {"run.json", "catalog.parquet", "quarantine.csv"}
    assert {name: run.info.status for name, run in children.items()} == {"left": "FINISHED", "right": "FINISHED"}
    before = count(uri)
    run_catalog_flow(catalog, tiny_params, made / "store", out)
    assert count(uri) == before == 3


def test_run_without_a_server_ends_well_and_says_so(
    prefect: None,
    made: Path,
    out: Path,
    tiny_params: Params,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    catalog = load_catalog(made / "clips.csv")
    assert run_catalog_flow(catalog, tiny_params, made / "store", out).hit == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "MLflow" in line)
    assert line.startswith("2 clips are not recorded") and line.endswith(f"effivmt sync {out}")
    transfer(catalog.clips[0], tiny_params, made / "store", out)
    assert "1 clip is not recorded" in capsys.readouterr().err
    assert not list(out.rglob("tracked.json"))


def test_sync_in_a_fresh_process(server: Server, out: Path) -> None:
    for name in ("left", "right"):
        change_one(out / name)

    def call(uri: str) -> subprocess.CompletedProcess:
        code = "import sys; from effivmt_flows.cli.main import main; sys.exit(main())"
        environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
        return subprocess.run(
            [sys.executable, "-c", code, "sync", str(out)], env=environment, capture_output=True, text=True
        )

    refused = call(NOWHERE)
    assert refused.returncode == 1 and refused.stdout == "" and len(refused.stderr.splitlines()) == 1
    assert refused.stderr.startswith(f"error: MLflow's server {NOWHERE} does not answer")
    done = call(server.uri)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{out}/left: recorded\n{out}/right: recorded\n2 recorded, 0 failed at {server.uri}\n"
    parent, children = family(server.uri, out)
    assert parent.info.status == "FAILED" and children.keys() == {"left", "right"}


def test_sync_of_what_is_recorded(
    server: Server, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert [reason for _, reason in sync(server.uri, out)] == ["", ""]
    before = count(server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    assert main(["sync", str(out)]) == 0
    assert capsys.readouterr().out == "nothing is pending\n" and count(server.uri) == before
    for note in out.rglob("tracked.json"):  # an out folder that was made anew is known by its contents
        note.unlink()
    assert [reason for _, reason in sync(server.uri, out)] == ["", ""]
    assert count(server.uri) == before


def test_sync_uploads_what_the_artifact_store_has_lost(server: Server, out: Path) -> None:
    """As after a move of the database without its artifacts: the runs are known, their files are not there."""
    client = MlflowClient(tracking_uri=server.uri)
    for name in ("left", "right"):
        change_one(out / name)
    assert [reason for _, reason in sync(server.uri, out)] == ["", ""]
    experiment = client.get_experiment_by_name("effivmt")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"  # its page opens on the runs
    run, (version,) = read_tracked(out / "left").run_id, client.search_model_versions("name = 'effivmt-left'")
    holders = {None: run, ADAPTER_PATH: version.run_id}  # the version may be of another run with the same adapter

    def there() -> dict[str | None, set[str]]:
        return {path: {file.path for file in client.list_artifacts(run, path)} for path, run in holders.items()}

    before = there()
    assert all(before.values())
    for holder in set(holders.values()):
        for lost in (server.artifacts / experiment.experiment_id / holder).iterdir():
            shutil.rmtree(lost)
    assert not any(there().values())
    (out / "left" / "tracked.json").unlink()
    assert [reason for _, reason in sync(server.uri, out)] == [""]
    assert there() == before


@pytest.mark.slow
def test_server_that_goes_in_the_middle(server: Server, out: Path) -> None:
    gate = Gate(server)
    recorder = Recorder(gate.uri, out, "clips.csv")
    change_one(out / "left")
    assert recorder.record(out / "left")
    begun = read_tracked(out).run_id
    gate.shut()
    change_one(out / "right")
    assert not recorder.record(out / "right")
    recorder.close()
    assert recorder.unrecorded == ["right"] and "effivmt sync" in recorder.message
    with pytest.raises(EffiVMTError, match="does not answer"):
        list(sync(gate.uri, out))
    gate.open()
    assert {folder.name: reason for folder, reason in sync(gate.uri, out)} == {"right": "", "out": ""}
    parent, children = family(server.uri, out)
    assert (parent.info.run_id, parent.info.status) == (begun, "FAILED")
    assert children.keys() == {"left", "right"}
    assert not list(sync(gate.uri, out))
    gate.shut()


def test_fault_of_one_clip_spares_the_others(server: Server, out: Path) -> None:
    recorder = Recorder(server.uri, out, "clips.csv")
    for name in ("left", "right"):
        change_one(out / name)
    (out / "left/sheet.png").unlink()
    assert [recorder.record(out / name) for name in ("left", "right")] == [False, True]
    recorder.close()
    parent, children = family(server.uri, out)
    assert {name: run.info.status for name, run in children.items()} == {"left": "FAILED", "right": "FINISHED"}
    assert parent.info.status == "FAILED" and "sheet.png" in recorder.message


def test_password_stays_private() -> None:
    assert public_uri("https://me:secret@host:5000/mlflow/") == "https://host:5000/mlflow"
    with pytest.raises(EffiVMTError) as raised:
        check_reachable("http://me:secret@127.0.0.1:9")
    assert "secret" not in str(raised.value)


def change_one(folder: Path) -> None:
    """Makes a folder's contents new to MLflow."""
    change(folder / "transfer.json", lambda run: run.update(made_of=f"{folder}"))
