"""Runs a catalog on a schedule: tells the Prefect server of it, waits for the server's word, and does the work here."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout

import httpx
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import PrefectException
from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from effivmt.errors import EffiVMTError, ParamsError, in_one_line
from effivmt_flows.nightly import nightly
from effivmt_tasks.outage import server_fault

GIVEN_UP = "Service exceeded error threshold."
"""What Prefect's runner raises when the server has failed three times in a row."""
WAIT = 10.0
"""Seconds between two looks whether a server that is gone is back."""


def check_schedule(cron: str, timezone: str) -> None:
    """Raises ParamsError for what is no cron expression or no timezone."""
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("timezone",):
            raise ParamsError(f"--timezone {timezone!r} is unknown; give an IANA name such as Europe/Berlin") from error
        raise ParamsError(
            f"--cron {cron!r} is no cron expression; expected minute, hour, day, month and weekday, such as '0 2 * * *'"
        ) from error


def serve(name: str, cron: str, timezone: str, parameters: Mapping[str, object]) -> None:
    """Serves the deployment `nightly/<name>`, one run at a time, until a signal stops it; then pauses its schedule.

    A server that goes away is waited for, and told of the deployment again.
    """
    while True:
        runner = Runner(name=name, pause_on_shutdown=True, limit=1)
        runner.add_flow(
            nightly,
            name=name,
            schedule=Cron(cron, timezone=timezone),
            parameters=dict(parameters),
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        stopping = asyncio.Event()
        try:
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # Prefect prints a page for each failure
                asyncio.run(_run(runner, stopping))
            return
        except Exception as error:  # a group of many kinds, where a task of the runner has failed
            if not (fault := server_fault() or _fault_in(error)):
                raise
            if stopping.is_set():
                raise EffiVMTError(
                    f"Prefect's server does not answer ({fault}): stopped, but its schedule could not be paused"
                ) from error
        print(f"Prefect's server does not answer ({fault}): waiting for it", file=sys.stderr, flush=True)
        time.sleep(WAIT)
        while server_fault():
            time.sleep(WAIT)
        print("Prefect's server answers again", file=sys.stderr, flush=True)


def _fault_in(error: BaseException) -> str:
    """What the server, which may be back, did wrong, in one line; empty for an error that comes from elsewhere."""
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_fault_in, error.exceptions)), "")
    gone = isinstance(error, httpx.HTTPError | PrefectException) or str(error) == GIVEN_UP
    return in_one_line(error)[:200] if gone else ""


async def _run(runner: Runner, stopping: asyncio.Event) -> None:
    """Runs the runner; at a signal it cancels the run at work, whose checkpoints stay in the store, and ends."""
    loop = asyncio.get_running_loop()
    serving = asyncio.create_task(runner.start(webserver=False))
    await asyncio.sleep(0)  # now it has set its own signal handler, which leaves its children behind
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it for SIGHUP
            loop.add_signal_handler(number, stopping.set)
    asked = asyncio.create_task(stopping.wait())
    await asyncio.wait((serving, asked), return_when=asyncio.FIRST_COMPLETED)
    if asked.done() and not serving.done():
        await runner.astop()
    asked.cancel()
    await serving
