"""Catalogs on a schedule: `effivmt serve`, its flow, and the deployment of prefect.yaml, over real Prefect servers."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command import Ended, effivmt
from services import COMMAND, prefect_server, started, until

ROOT = Path(__file__).parents[2]
HEADING = "clip,video,caption,prompts\n"
ROWS = ("first,a.mp4,a red square,a green circle\n", "second,a.mp4,a blue square,a green circle\n")
NIGHT = ("--cron", "0 2 * * *")


@pytest.fixture
def catalog(tmp_path: Path, sample_video: Path) -> Path:
    """A catalog of one clip."""
    shutil.copyfile(sample_video, tmp_path / "a.mp4")
    (tmp_path / "films.csv").write_text(HEADING + ROWS[0], encoding="utf-8")
    return tmp_path / "films.csv"


def serve(project: Path, catalog: Path, *more: object) -> Ended:
    return effivmt("serve", catalog, "--params", project / "params.yaml", *more)


def test_wrong_use_exits_2(project: Path, catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(catalog.parent)
    bad = catalog.with_name("bad.csv")
    bad.write_text(HEADING + "x,../a.mp4,c,p\n", encoding="utf-8")
    for ended, told in (
        (serve(project, catalog, "--cron", "61 2 * * *"), "--cron '61 2 * * *' is no cron expression"),
        (serve(project, catalog, *NIGHT, "--timezone", "Mars/Olympus"), "--timezone 'Mars/Olympus' is unknown"),
        (serve(project, bad, *NIGHT), "row 1, column video: '../a.mp4' leaves"),
        (serve(project, catalog, *NIGHT, "--runner", "dask"), "--address"),
        (serve(project, catalog, *NIGHT), "prefect server start"),
    ):
        assert ended.code == 2 and told in ended.err, ended.err


def test_flow_reads_the_catalog_anew_and_fails_with_the_reason(
    project: Path, catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(catalog.parent)  # mlflow.db
    from prefect.client.orchestration import get_client

    from effivmt_flows.nightly import nightly

    places = {"params": str(project / "params.yaml"), "store": catalog.parent / "store", "out": catalog.parent / "out"}
    state = nightly(catalog, **places, return_state=True)
    assert state.is_completed() and state.message.startswith("1 done, 0 hit, 0 failed")
    catalog.write_text(HEADING + ROWS[0] + "lost,b.mp4,a,b\n", encoding="utf-8")
    state = nightly(catalog, **places, return_state=True)
    assert state.name == "Failed" and state.message.startswith("0 done, 1 hit, 1 failed")
    artifacts = {artifact.key: artifact for artifact in get_client(sync_client=True).read_latest_artifacts()}
    table = {row["clip"]: (row["status"], row["stage"]) for row in json.loads(artifacts["films-clips"].data)}
    assert table == {"first": ("hit", ""), "lost": ("failed", "ingest")}
    assert artifacts["films-progress"].data == 100
    report = artifacts["films-report"].data
    assert report.startswith("# films.csv: 2 of 2 clips, 1 failed") and "| lost | ingest |" in report
    assert "| first | " in report and "Motion fidelity" in report and "report.html" in report
    catalog.write_text(HEADING + "a b,a.mp4,a,b\n", encoding="utf-8")
    state = nightly(catalog, **places, return_state=True)
    assert state.is_failed() and "row 1, column clip" in state.message and "\n" not in state.message


def test_server_that_takes_no_artifact_costs_a_warning(catalog: Path, caplog: pytest.LogCaptureFixture) -> None:
    from prefect import flow
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from effivmt.catalog import load_catalog
    from effivmt.pipeline.outcomes import ClipOutcome
    from effivmt_tasks.artifacts import RunArtifacts

    @flow
    def report() -> str:
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
            page = RunArtifacts(load_catalog(catalog))
            page.close([ClipOutcome("first", "done", 1.0, {})], catalog.parent)
        return "ended"

    assert report() == "ended"
    assert caplog.text.count("the server did not accept an artifact") == 3  # the progress, the table and the report


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a Prefect server, in which served flows are asked for often."""
    with prefect_server(tmp_path_factory.mktemp("prefect")) as environment:
        yield environment | {"PREFECT_RUNNER_POLL_FREQUENCY": "2", "PREFECT_WORKER_QUERY_SECONDS": "2"}


def _statuses(out: Path) -> dict[str, str]:
    """What became of every clip in the last run."""
    run = out / "run.json"
    return {row["clip"]: row["status"] for row in json.loads(run.read_text())["clips"]} if run.exists() else {}


@pytest.mark.slow
def test_scheduled_run_fires_and_picks_up_new_rows(project: Path, catalog: Path, server: dict[str, str]) -> None:
    folder = catalog.parent
    out, log = folder / "out", folder / "serve.log"
    places = ("--params", project / "params.yaml", "--store", folder / "store", "--out", out)
    often = ("--cron", "* * * * * */15")  # the sixth field is seconds
    with started(log, *COMMAND, "serve", catalog, *often, *places, **server) as serving:
        until(lambda: _statuses(out), 200, log)
        assert set(_statuses(out)) == {"first"} and (out / "first" / "video-1.mp4").stat().st_size
        catalog.write_text(HEADING + "".join(ROWS), encoding="utf-8")
        until(lambda: "second" in _statuses(out), 200, log)
        assert _statuses(out) == {"first": "hit", "second": "done"}
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(60) == 0, log.read_text()
    assert log.read_text().splitlines()[-1].startswith("stopped; the schedule is paused")


@pytest.mark.slow
def test_deployment_runs_on_a_work_pool(project: Path, catalog: Path, server: dict[str, str]) -> None:
    folder = catalog.parent
    document = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (deployment,) = document["deployments"]
    deployment["entrypoint"] = f"{ROOT}/{deployment['entrypoint']}"
    deployment["parameters"] |= {"catalog": catalog.name, "params": str(project / "params.yaml")}
    deployment["schedules"] = [{"cron": "* * * * * */15"}]
    (folder / "prefect.yaml").write_text(yaml.safe_dump(document))
    pool = deployment["work_pool"]["name"]
    for words in (("work-pool", "create", pool, "--type", "process"), ("--no-prompt", "deploy", "--all")):
        with started(folder / "prefect.log", "-m", "prefect", *words, **server, PWD=str(folder)) as process:
            assert process.wait(120) == 0, (folder / "prefect.log").read_text()
    log = folder / "worker.log"
    with started(log, "-m", "prefect", "worker", "start", "--pool", pool, **server):
        until(lambda: _statuses(folder / "out"), 200, log)
    assert _statuses(folder / "out")["first"] == "done"
