"""Runs a catalog on a schedule: tells the Prefect server of it, waits for the server's word, and does the work here."""

import asyncio
import signal
from collections.abc import Mapping

from prefect.client.schemas.schedules import CronSchedule
from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from effivmt.errors import ParamsError
from effivmt_flows.nightly import nightly


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
    """Serves the deployment `nightly/<name>`, one run at a time, until a signal stops it; then pauses its schedule."""
    runner = Runner(name=name, pause_on_shutdown=True, limit=1)
    runner.add_flow(
        nightly,
        name=name,
        schedule=Cron(cron, timezone=timezone),
        parameters=dict(parameters),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    asyncio.run(_run(runner))


async def _run(runner: Runner) -> None:
    """Runs the runner; at a signal it cancels the run at work, whose checkpoints stay in the store, and ends."""
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
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
