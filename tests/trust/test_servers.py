"""Commands that are killed while they use servers, and servers that go away in the middle of a command."""

import json
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from project import Project, results
from services import COMMAND, free_port, prefect_server, started, until
from trial import Tries

KILLS = 6
PULLS = 8
SECONDS = 600
"""Most seconds for anything that these tests wait for."""
MANY = ("--set", "spatial.steps=60", "--set", "spatial.save_every=1", "--set", "temporal.save_every=1")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture
def unrecorded(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project, without a registry that answers: these runs are none of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    return project


def words(project: Project, folder: Path, command: str) -> list[object]:
    """The command with Prefect, on a store and out folder below `folder`."""
    given = project.words(command)
    given = given[: given.index("--store")]
    return [*COMMAND, *given, "--store", folder / "store", "--out", folder / "out", *MANY]


def statuses(out: Path) -> dict[str, str]:
    """What became of every clip in the last run."""
    run = out / "run.json"
    return {row["clip"]: row["status"] for row in json.loads(run.read_text())["clips"]} if run.exists() else {}


def published(store: Path) -> dict[str, str]:
    """The records of a store's artifacts by name, as text."""
    return {path.relative_to(store).as_posix(): path.read_text() for path in store.glob("*/*/artifact.json")}


def test_killed_under_prefect(unrecorded: Project, tmp_path: Path, tries: Tries) -> None:
    """At moments of all stages; the artifacts of a killed run stay, and the last run ends with what one run gives."""
    chance, log = random.Random(22), tmp_path / "run.log"
    moments = ["ingest/*/artifact.json", "scratch/*/spatial.safetensors", "spatial/*/artifact.json"]
    moments += ["scratch/*/temporal.safetensors", "temporal/*/artifact.json", "render/*/artifact.json"]
    with prefect_server(tmp_path) as environment:
        kept: dict[str, str] = {}
        for moment in moments[:KILLS]:
            with started(log, *words(unrecorded, tmp_path, "transfer"), **environment) as run:
                until(lambda moment=moment: list((tmp_path / "store").glob(moment)), SECONDS, log)
                time.sleep(chance.uniform(0, 0.2))
                run.send_signal(signal.SIGKILL)
                run.wait()
            now = published(tmp_path / "store")
            assert kept.items() <= now.items()
            kept = now
            tries()
        with started(log, *words(unrecorded, tmp_path, "transfer"), **environment) as run:
            assert run.wait(SECONDS) == 0, log.read_text()
    with started(log, *words(unrecorded, tmp_path / "whole", "transfer"), "--engine", "local") as run:
        assert run.wait(SECONDS) == 0, log.read_text()
    once = results(tmp_path / "whole")
    assert once and results(tmp_path) == once
    left = [path for name in ("building", "scratch", "locks") for path in (tmp_path / "store" / name).glob("*")]
    assert not left


@pytest.mark.parametrize("command", ["transfer", "run"])
def test_prefect_server_goes_in_the_middle(unrecorded: Project, tmp_path: Path, command: str) -> None:
    log, port = tmp_path / "run.log", free_port()
    with ExitStack() as server:
        environment = server.enter_context(prefect_server(tmp_path, port))
        with started(log, *words(unrecorded, tmp_path, command), **environment) as run:
            until(lambda: list((tmp_path / "store").glob("scratch/*/spatial.safetensors")), SECONDS, log)
            server.close()
            assert run.wait(SECONDS) == 1, log.read_text()
    text = log.read_text()
    assert "Traceback" not in text and text.count("error: Prefect's server has gone or failed (") == 1, text
    assert len(text.splitlines()) < 20, text
    assert results(tmp_path)  # it is whole all the same
    with (
        prefect_server(tmp_path, port) as environment,
        started(log, *words(unrecorded, tmp_path, command), **environment) as run,
    ):
        assert run.wait(SECONDS) == 0, log.read_text()
    assert ("1 hit" if command == "run" else "temporal: hit") in log.read_text()


def test_serve_outlives_its_server_and_a_kill(unrecorded: Project, tmp_path: Path) -> None:
    log, port, out = tmp_path / "serve.log", free_port(), tmp_path / "out"
    given = words(unrecorded, tmp_path, "run")
    often = ("--cron", "* * * * * */15")  # the sixth field is seconds
    serve = [*COMMAND, "serve", *given[given.index("run") + 1 :], *often]
    own = {"PREFECT_RUNNER_POLL_FREQUENCY": "2"}
    with ExitStack() as server:
        environment = server.enter_context(prefect_server(tmp_path, port)) | own
        with started(log, *serve, **environment) as serving:
            until(lambda: list((tmp_path / "store").glob("scratch/*/spatial.safetensors")), SECONDS, log)
            server.close()
            until(lambda: "Prefect's server does not answer" in log.read_text(), SECONDS, log)
            environment = server.enter_context(prefect_server(tmp_path, port)) | own
            until(lambda: "answers again" in log.read_text(), SECONDS, log)
            until(lambda: statuses(out) == {"first": "hit"}, SECONDS, log)
            serving.send_signal(signal.SIGKILL)
            serving.wait()
        (out / "run.json").unlink()
        with started(log, *serve, **environment) as serving:
            until(lambda: statuses(out) == {"first": "hit"}, SECONDS, log)
            serving.send_signal(signal.SIGTERM)
            assert serving.wait(SECONDS) == 0, log.read_text()
    assert log.read_text().splitlines()[-1].startswith("stopped; the schedule is paused")


def test_a_pull_that_is_killed(project: Project, tmp_path: Path, tries: Tries) -> None:
    """At any moment: the folder is whole or not there, and the next pull leaves nothing else."""
    chance, log, out = random.Random(23), tmp_path / "pull.log", tmp_path / "at" / "pulled"
    asked = [*COMMAND, *project.words("pull")[:-1], out]
    began = time.monotonic()
    with started(log, *asked) as pull:
        assert pull.wait(SECONDS) == 0, log.read_text()
    lasting, whole = time.monotonic() - began, {path.name: path.read_bytes() for path in out.iterdir()}
    for _ in range(PULLS):
        for path in out.iterdir():
            path.unlink()
        out.rmdir()
        with started(log, *asked) as pull:
            time.sleep(chance.uniform(lasting / 2, lasting))
            pull.send_signal(signal.SIGKILL)
            pull.wait()
        assert not out.exists() or {path.name: path.read_bytes() for path in out.iterdir()} == whole
        with started(log, *asked) as pull:
            assert pull.wait(SECONDS) == 0, log.read_text()
        assert [path.name for path in out.parent.iterdir()] == ["pulled"]
        assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
        tries()
