"""Real servers, workers and commands as processes of their own, which end with the test."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError

COMMAND = ("-c", "import sys; from effivmt_flows.cli.main import main; sys.exit(main(sys.argv[1:]))")
"""Python's arguments that make it `effivmt`."""


@contextmanager
def started(log: Path, *arguments: object, **environment: str) -> Iterator[subprocess.Popen]:
    """A Python process with its output in a file; it, and what it has started, is killed at the end.

    Its working folder has files of a user by the names of our folders, which end whatever imports them.
    """
    refusal = "raise SystemExit('a file of the user was imported')\n"
    (log.parent / "tasks.py").write_text(refusal, encoding="utf-8")
    (log.parent / "flows").mkdir(exist_ok=True)
    (log.parent / "flows" / "__init__.py").write_text(refusal, encoding="utf-8")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def prefect_server(folder: Path, port: int = 0) -> Iterator[dict[str, str]]:
    """A Prefect server with a database of its own; gives the environment in which it is the server.

    port: that of a server that has ended, whose database it goes on with.
    """
    port = port or free_port()
    own = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    start = ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port)
    with started(folder / "server.log", *start, **own):
        until(lambda: _answers(f"http://127.0.0.1:{port}/api/health"), 400, folder / "server.log")
        yield own | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}


def until(true: Callable[[], object], seconds: float, log: Path) -> None:
    """Waits until something is true; AssertionError with the end of a log when it takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"nothing in {seconds} s; {log}: {log.read_text()[-3000:]}"
        time.sleep(0.2)


def free_port() -> int:
    """A port of the loopback interface that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except (URLError, OSError):
        return False
    return True
