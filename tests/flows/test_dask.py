"""`effivmt run --runner dask`: what is checked before work begins, and a cluster that loses a worker in mid-run."""

import csv
import json
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from command import effivmt
from distributed import LocalCluster
from services import COMMAND, free_port, prefect_server, started, until

from effivmt.errors import EffiVMTError
from effivmt_tasks.cluster import Cluster

CLIPS, STEPS = 6, 150


def test_wrong_use_exits_2(project: Path) -> None:
    for more, told in (
        (("--runner", "dask"), "--address"),
        (("--address", "tcp://127.0.0.1:1"), "add --runner dask"),
        (("--resource", "GPU"), "add --runner dask"),
        (("--runner", "dask", "--address", "tcp://127.0.0.1:1", "--engine", "local"), "contradict"),
    ):
        ended = effivmt("run", "--params", project / "params.yaml", *more)
        assert ended.code == 2 and told in ended.err, ended.err


def test_what_workers_have_need_not_be_here(project: Path, sample_video: Path, tmp_path: Path) -> None:
    """No attention backend of a GPU runs here; the commands end later, as there is no Prefect server either."""
    (tmp_path / "a.mp4").write_bytes(sample_video.read_bytes())
    (tmp_path / "films.csv").write_text("clip,video,caption,prompts\na,a.mp4,b,c\n", encoding="utf-8")
    places = ("--params", project / "params.yaml", "--store", tmp_path / "store", "--out", tmp_path / "out")
    common = (tmp_path / "films.csv", *places, "--set", "backbone.attention=flash")
    cluster = ("--runner", "dask", "--address", "tcp://127.0.0.1:1")
    for command in (("run",), ("serve", "--cron", "0 2 * * *")):
        here, there = effivmt(*command, *common), effivmt(*command, *common, *cluster)
        assert (here.code, there.code) == (2, 2)
        assert "backbone.attention is flash but it cannot be used" in here.err
        assert "needs a persistent Prefect server" in there.err


def test_cluster_is_checked_before_work_begins(tmp_path: Path) -> None:
    here = {"processes": False, "dashboard_address": None, "protocol": "tcp", "host": "127.0.0.1"}
    with LocalCluster(1, threads_per_worker=1, resources={"GPU": 1}, **here) as local:
        Cluster(local.scheduler_address, "GPU").check((tmp_path / "store",))
        assert not list((tmp_path / "store").iterdir())
        with pytest.raises(EffiVMTError, match=r"no worker at .* has the resource TPU; start some: `dask worker"):
            Cluster(local.scheduler_address, "TPU").check((tmp_path,))
        (tmp_path / "file").touch()
        with pytest.raises(EffiVMTError, match="cannot be written"):
            Cluster(local.scheduler_address).check((tmp_path / "file",))
        local.scale(0)
        local.sync(local._correct_state)
        with pytest.raises(EffiVMTError, match="has no workers"):
            Cluster(local.scheduler_address).check((tmp_path,))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_worker_s_clip_is_finished_by_another(project: Path, sample_video: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(sample_video.read_bytes())
    with (tmp_path / "films.csv").open("w", newline="") as file:
        rows = [(f"clip-{number}", "a.mp4", f"square number {number}", "a green circle") for number in range(CLIPS)]
        csv.writer(file).writerows([("clip", "video", "caption", "prompts"), *rows])
    store, out, port = tmp_path / "store", tmp_path / "out", free_port()
    address = f"tcp://127.0.0.1:{port}"
    with ExitStack() as stack:
        environment = stack.enter_context(prefect_server(tmp_path))
        scheduler = ("-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
        stack.enter_context(started(tmp_path / "scheduler.log", *scheduler))
        worker = ("-m", "dask", "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        worker = (*worker, "--resources", "GPU=1")
        doomed, _ = (stack.enter_context(started(tmp_path / f"worker-{n}.log", *worker)) for n in (1, 2))
        for number in (1, 2):
            log = tmp_path / f"worker-{number}.log"
            until(lambda log=log: "Registered to" in log.read_text(), 60, log)
        places = ("--params", project / "params.yaml", "--store", store, "--out", out)
        cluster = ("--runner", "dask", "--address", address, "--resource", "GPU")
        long = ("--set", f"temporal.steps={STEPS}")
        log = tmp_path / "run.log"
        command = (*COMMAND, "run", tmp_path / "films.csv", *places, *cluster, *long)
        run = stack.enter_context(started(log, *command, **environment))
        until(lambda: len(list(store.glob("scratch/*/temporal.safetensors"))) == 2, 200, log)  # both are at work
        doomed.send_signal(signal.SIGKILL)
        assert run.wait(600) == 0, log.read_text()
        stages = _stage_tasks(environment)
    ended = re.findall(r"^\[\d/\d\] (\S+): (\w+) in", log.read_text(), re.MULTILINE)
    assert sorted(ended) == [(name, "done") for name, *_ in rows]
    assert {row["clip"]: row["status"] for row in json.loads((out / "run.json").read_text())["clips"]} == dict(ended)
    assert all((out / name / "video-1.mp4").stat().st_size for name, *_ in rows)
    assert len(list((store / "temporal").glob("*/artifact.json"))) == CLIPS
    assert not list(store.glob("scratch/*")) and not list(store.glob("building/*"))
    completed = Counter(stage for stage, state in stages if state == "Completed")
    assert completed["spatial"] == completed["temporal"] == completed["evaluate"] == CLIPS  # a hit would be Cached
    assert sum(stage == "temporal" for stage, _ in stages) == CLIPS + 1  # one task died with its worker


def _stage_tasks(environment: dict[str, str]) -> list[tuple[str, str]]:
    """Stage and final state of every task that ran a stage, as the server knows them."""
    code = """
import json, time
from prefect.client.orchestration import get_client
time.sleep(3)  # the server hears of states through a queue
runs = get_client(sync_client=True).read_task_runs(limit=200)
print(json.dumps([(run.name.rpartition(": ")[2], run.state_name) for run in runs]))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return [tuple(run) for run in json.loads(answer.stdout)]
