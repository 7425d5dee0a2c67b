"""A real `mlflow server` on loopback."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen


@dataclass(frozen=True)
class Server:
    """A running server: its address, and the folder where it keeps artifacts."""

    uri: str
    artifacts: Path


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Serves the store `folder`/mlflow.db from a process group of its own, which ends with the context."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    uri = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes that we never use
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _await(uri, process, folder / "log")
        yield Server(uri, folder / "artifacts")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Gate:
    """A port of its own that passes everything on to a server while it is open; shut, it refuses like no server."""

    def __init__(self, server: Server, after: int = 0) -> None:
        """Opens on a free port. after: it shuts when it has passed on this many bytes, if any are given."""
        self._left = after
        self._to = ("127.0.0.1", int(server.uri.rpartition(":")[2]))
        self._ends: list[socket.socket] = []
        self._port = 0
        self.open()
        self.uri = f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Lets callers in, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._let_in, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Cuts every connection and refuses new ones."""
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends = []

    def _let_in(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                ends = (listener.accept()[0], socket.create_connection(self._to))
                self._ends += ends
                for source, target in (ends, ends[::-1]):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                target.sendall(chunk[: self._left] if self._left else chunk)
                if self._left and (left := self._left - len(chunk)) <= 0:
                    self.shut()
                elif self._left:
                    self._left = left
            target.shutdown(socket.SHUT_WR)


def _await(uri: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urlopen(f"{uri}/health", timeout=5).close()
            return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the server did not start: {log.read_text()[-2000:]}")
