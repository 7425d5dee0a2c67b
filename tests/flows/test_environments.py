"""Machines as people have them: proxies, homes that cannot be written, servers that do not answer."""

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Ended, effivmt
from services import COMMAND

from effivmt.errors import EffiVMTError

DEAD = "http://127.0.0.1:9"


def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own."""
    words = [sys.executable, *map(str, arguments)]
    return subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("before", "after"), [("", ""), ("intra.net", "intra.net,")])
def test_loopback_is_exempt_from_the_proxies(before: str, after: str) -> None:
    code = "import os, effivmt_tasks; print(os.environ['NO_PROXY'], os.environ['no_proxy'])"
    ended = call("-c", code, HTTPS_PROXY=DEAD, no_proxy=before)
    assert ended.stdout.split() == [f"{after}localhost,127.0.0.1,::1"] * 2
    untouched = call("-c", "import os, effivmt_tasks; print(os.environ.get('NO_PROXY'))")
    assert untouched.stdout == "None\n"


def test_a_socks_proxy_does_not_keep_prefect_from_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    from effivmt_tasks.server import _avoid_socks

    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    _avoid_socks()
    httpx.Client().close()  # what Prefect's clients begin with; it raised ImportError


def test_all_hits_need_no_engine(
    project: Path, transferred: Ended, transfer_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    """No server could start here: Prefect's home is below a file."""
    assert transferred.code == 0
    (tmp_path / "file").touch()
    nowhere = {"PREFECT_HOME": str(tmp_path / "file" / "home"), "MLFLOW_TRACKING_URI": DEAD}
    listing = f"{COMMAND[1].removesuffix('sys.exit(main(sys.argv[1:]))')}code = main(sys.argv[1:]); "
    listing += "print(*sys.modules); sys.exit(code)"
    arguments = transfer_arguments("--out", project / "out", "--engine", "prefect")
    ended = call("-c", listing, *arguments, **nowhere)
    assert ended.returncode == 0, ended.stderr
    assert set(Ended(0, "", ended.stderr).outcomes().values()) == {"hit"}
    assert not {"prefect", "torch", "dvc"} & set(ended.stdout.splitlines()[-1].split())
    assert "is not recorded in MLflow" in ended.stderr  # an engine or none: the out folder is to be recorded

    new = call(
        *COMMAND, *transfer_arguments("--out", project / "out", "--engine", "prefect", prompts=("z",)), **nowhere
    )
    assert new.returncode == 1
    assert new.stderr.splitlines()[-1].startswith(
        f"error: Prefect's home {tmp_path}/file/home cannot be written (Not a"
    )
    assert "PREFECT_HOME" in new.stderr and "Traceback" not in new.stderr


def test_settings_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text("[[[ no TOML")
    code = "import effivmt_tasks.server"
    for environment in ({"PREFECT_HOME": str(tmp_path)}, {"PREFECT_CLIENT_MAX_RETRIES": "many"}):
        ended = call("-c", code, **environment)
        assert "effivmt.errors.EffiVMTError: Prefect's settings cannot be read (" in ended.stderr


def test_servers_that_do_not_answer_are_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from effivmt_tasks import server

    monkeypatch.setattr(server, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = (f"{DEAD}/api", f"http://127.0.0.1:{silent.getsockname()[1]}/api", "nonsense")
        for address in addresses:
            told = pytest.raises(EffiVMTError, match=f"server {address} does not answer .*PREFECT_API_URL")
            with temporary_settings({PREFECT_API_URL: address}), told:
                server.reach_server()


def test_own_server_that_dies_is_not_waited_for() -> None:
    from effivmt_tasks.server import _answers

    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]) as process:
        assert not _answers(process, f"{DEAD}/api", 600.0)


def test_a_fault_of_mlflow_does_not_end_a_start() -> None:
    code = """
import sys
sys.modules["mlflow"] = None
from effivmt_flows.cli.preloading import import_libraries
import_libraries()
assert "torch" in sys.modules and "effivmt_tasks.tracking.runs" not in sys.modules
"""
    ended = call("-c", code)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_a_start_that_is_broken_off_leaves_no_server(tmp_path: Path) -> None:
    code = """
from contextlib import suppress
from effivmt_tasks import server
def stopped():
    started.append(server._own_server().server_process)
    raise KeyboardInterrupt
started = []
with suppress(KeyboardInterrupt):
    server.reach_server(meanwhile=stopped)
assert started[0].poll() is not None
address = server.reach_server()
assert server._answers(server._own_server().server_process, address, 1.0)
"""
    ended = call("-c", code, PREFECT_HOME=str(tmp_path / "home"))
    assert ended.returncode == 0, ended.stderr


def test_a_start_keeps_others_out_of_its_home(tmp_path: Path) -> None:
    from effivmt_tasks.server import LOCK, _alone

    with _alone(tmp_path), (tmp_path / LOCK).open("ab") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with _alone(tmp_path):
        pass


def test_the_fault_of_a_server_is_its_exception() -> None:
    from effivmt_tasks.server import _fault_in

    raised = "sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) duplicate column name: capabilities"
    log = f"Traceback (most recent call last):\n  raise error\n{raised}\n[SQL: ALTER TABLE]\n\n"
    log += "15:01:16.151 | ERROR   | uvicorn.error - Application startup failed. Exiting.\n"
    assert _fault_in(log) == raised
    assert _fault_in("a line\n\n") == "a line" and _fault_in("") == "it says nothing"


@pytest.mark.slow
def test_two_first_runs_at_once_share_a_home(tmp_path: Path) -> None:
    """Both servers would make the database; one failed of a column that was there already."""
    code = """
from effivmt_tasks.server import reach_server
for _ in range(2):
    print(reach_server(meanwhile=lambda: print("meanwhile")))
"""
    words = [sys.executable, "-c", code]
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "home")}
    both = [subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=250)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    for meanwhile, first, again in (words.splitlines() for words in said):
        assert meanwhile == "meanwhile" and first == again and first.startswith("http://127.0.0.1:")


@pytest.mark.slow
def test_a_server_that_cannot_use_its_database_says_why(tmp_path: Path) -> None:
    (tmp_path / "prefect.db").write_bytes(b"no database " * 500)
    code = """
from contextlib import suppress
from effivmt.errors import EffiVMTError
from effivmt_tasks.server import reach_server
with suppress(EffiVMTError):
    reach_server()
reach_server()  # it says so again, and gives no address of a server that has ended
"""
    ended = call("-c", code, PREFECT_HOME=str(tmp_path))
    assert "Prefect's own server does not start (it has ended with code 3: sqlalchemy" in ended.stderr
    assert "file is not a database" in ended.stderr


@pytest.mark.parametrize(("kind", "told"), [("link", "is a link to"), ("file", "a file stands where")])
def test_a_store_that_cannot_be_made_is_one_line(
    project: Path, sample_video: Path, tmp_path: Path, kind: str, told: str
) -> None:
    store = tmp_path / "store"
    store.symlink_to(tmp_path / "nowhere") if kind == "link" else store.touch()
    (tmp_path / "a.mp4").write_bytes(sample_video.read_bytes())
    (tmp_path / "films.csv").write_text("clip,video,caption,prompts\na,a.mp4,b,c\n", encoding="utf-8")
    texts = ("--caption", "a", "--prompt", "b", "--out", tmp_path / "out")
    for words in (("transfer", sample_video, *texts), ("run", tmp_path / "films.csv", "--dry-run"), ("doctor",)):
        ended = effivmt(*words, "--params", project / "params.yaml", "--store", store)
        lines = [line for line in (ended.out + ended.err).splitlines() if str(store) in line and "disk" not in line]
        assert ended.code == 1 and len(lines) == 1, ended
        assert told in lines[0] or words[0] == "doctor"
