"""The Prefect server of a run: the one that PREFECT_API_URL or a profile names, else one of this process's own."""

import atexit
import fcntl
import importlib.util
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from effivmt.errors import EffiVMTError, ParamsError
from effivmt_tasks.outage import expect_outage

if TYPE_CHECKING:
    from prefect.server.api.server import SubprocessASGIServer

warnings.filterwarnings("ignore", "Failed to create the Prefect home")  # `_check_home` says it in one line
try:
    import httpx
    import prefect
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

    get_current_settings()
except ValueError as error:  # of a profile that is no TOML, and of settings with a wrong value
    raise EffiVMTError(
        f"Prefect's settings cannot be read ({' '.join(str(error).split())[:300]}); mend the PREFECT_ variables and "
        "profiles.toml in PREFECT_HOME, or run without an engine: --engine local"
    ) from error

PATIENCE = 10.0
"""Seconds within which a server that is named must answer."""
OWN = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",  # its log is read where it does not start
}
"""The environment of a server of one's own."""
LOCK = "effivmt.lock"
"""A file in Prefect's home that whoever starts a server there holds."""
_SERVER = "prefect.server.api.server"
OTHERWISE = ", or run without an engine: --engine local"


def reach_server(*, needed_by: str = "", meanwhile: Callable[[], None] | None = None) -> str:
    """Waits for the named server, or starts our own; returns its address. EffiVMTError where none answers.

    needed_by: the option that needs a persistent server, because it schedules runs or other processes connect to it;
    where none is named that is a ParamsError. meanwhile: is called while our own server starts, which takes seconds.
    """
    settings = get_current_settings()
    named = settings.api.url
    if needed_by and not named:
        raise ParamsError(
            f"{needed_by} needs a persistent Prefect server: start one with `prefect server start` and set "
            "PREFECT_API_URL=http://HOST:4200/api"
        )
    if not named and not settings.server.ephemeral.enabled:
        raise EffiVMTError(
            "Prefect's settings name no server (PREFECT_API_URL) and forbid to start one "
            f"(PREFECT_SERVER_EPHEMERAL_ENABLED): set either{OTHERWISE}"
        )
    if not named or urlsplit(named).hostname in ("127.0.0.1", "localhost", "::1"):
        _avoid_socks()
    if not named:
        address = _start_own(meanwhile)
        expect_outage()
        return address
    if (fault := _fault_of(named)) is None:
        expect_outage()
        return named
    other = "" if needed_by else f"unset PREFECT_API_URL{OTHERWISE}"
    raise EffiVMTError(
        f"Prefect's server {named} does not answer ({' '.join(str(fault).split())[:300]}); start it with "
        f"`prefect server start`, correct its address in PREFECT_API_URL or the profile{other and ', ' + other}"
    ) from fault


def examine_server() -> str:
    """The server that a run would use, in words; EffiVMTError where there is none and none can be started."""
    settings = get_current_settings()
    if not settings.api.url:
        _check_home(settings.home)
        return f"a run starts its own, with its database in {settings.home}"
    return reach_server()


def _fault_of(named: str) -> Exception | None:
    """What keeps a named server from answering."""
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings={"timeout": PATIENCE}) as client,
        ):
            return client.api_healthcheck()
    except (RuntimeError, ValueError, ImportError, httpx.HTTPError, httpx.InvalidURL) as error:
        return error


def _avoid_socks() -> None:
    """Takes a SOCKS proxy out of the environment where no package can use it: Prefect's client would not start.

    EffiVMTError where only MLflow's client can use it.
    """
    names = [name for name, value in os.environ.items() if name.lower().endswith("_proxy") and "socks" in value.lower()]
    if not names or importlib.util.find_spec("socksio"):
        return
    if importlib.util.find_spec("socks"):
        raise EffiVMTError(
            f"{names[0]} is a SOCKS proxy, for which Prefect's client needs a package: pip install socksio{OTHERWISE}"
        )
    for name in names:
        del os.environ[name]


def _start_own(meanwhile: Callable[[], None] | None) -> str:
    """Starts a server on loopback that ends with this process, unless it runs already; returns its address.

    Prefect's own start waits two minutes for a server that has died, and for ever where it dies of its database. The
    server inherits a signal mask without SIGINT: it must outlive the run, to record that Ctrl-C stopped it.
    """
    if _SERVER in sys.modules and (running := _own_server()).running:
        return running.api_url
    home = get_current_settings().home
    _check_home(home)
    with _alone(home), tempfile.TemporaryFile() as log:
        port = _free_port()
        app = ("--app-dir", str(prefect.__module_path__.parent), "--factory", f"{_SERVER}:create_app")
        address = ("--host", "127.0.0.1", "--port", str(port), "--log-level", "error")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", *app, *address],
                env=os.environ | get_current_settings().to_environment_variables(exclude_unset=True) | OWN,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            atexit.register(process.terminate)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        server = _own_server()
        server.port, server.server_process, server.running = port, process, True
        atexit.register(server.stop)
        try:
            if meanwhile is not None:
                meanwhile()
            patience = get_current_settings().server.ephemeral.startup_timeout_seconds
            answers = _answers(process, server.api_url, patience)
        except BaseException:  # a further call must not take a server for running that nobody has heard
            server.stop()
            raise
        if not answers:
            log.seek(0)
            said, code = _fault_in(log.read().decode(errors="replace")), process.poll()
            server.stop()  # a further call starts another, and does not take this one for running
            end = f"waited {patience} s for it" if code is None else f"it has ended with code {code}"
            raise EffiVMTError(
                f"Prefect's own server does not start ({end}: {said}); its database is in {home}: set "
                f"PREFECT_HOME to another folder, or PREFECT_API_URL to a server that runs{OTHERWISE}"
            )
        return server.api_url


def _own_server() -> "SubprocessASGIServer":
    """The server that Prefect's clients of this process ask for; importing Prefect's server takes seconds."""
    from prefect.server.api.server import SubprocessASGIServer

    return SubprocessASGIServer()


def _free_port() -> int:
    """A free port of those that Prefect takes for such servers; none of them is for outgoing connections.

    Prefect's own search is in the module that takes seconds to import.
    """
    for port in random.sample(range(8000, 9000), 1000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise EffiVMTError(f"no port of 8000 to 8999 is free for Prefect's own server: free one{OTHERWISE}")


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Waits until no other process starts a server in Prefect's home: one of two that make its database at once fails.

    EffiVMTError where the file system has no locks.
    """
    with (home / LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise EffiVMTError(
                f"Prefect's home {home} cannot be locked ({error.strerror}): set PREFECT_HOME to a folder on a local "
                f"disk{OTHERWISE}"
            ) from error
        yield


def _fault_in(log: str) -> str:
    """The last exception in a server's log, else its last line; at most 300 characters."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    return (raised or lines or ["it says nothing"])[-1][:300]


def _check_home(home: Path) -> None:
    """EffiVMTError where Prefect's home, which holds the database of our own server, cannot be written."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            return
    except OSError as error:
        raise EffiVMTError(
            f"Prefect's home {home} cannot be written ({error.strerror}), where its own server keeps a database: set "
            f"PREFECT_HOME to a folder that can be written{OTHERWISE}"
        ) from error


def _answers(process: subprocess.Popen[bytes], url: str, seconds: float) -> bool:
    """Whether the server answers before it ends, and within some seconds; no proxy lies between."""
    deadline = time.monotonic() + seconds
    with httpx.Client(trust_env=False, timeout=5) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if client.get(f"{url}/health").status_code == httpx.codes.OK:
                    return process.poll() is None  # else it is another's answer
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    return False
