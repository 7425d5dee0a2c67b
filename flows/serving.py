"""Runs a catalog on a schedule: tells the Prefect server of it, waits for the server's word, and does the work here."""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from prefect.client.schemas.schedules import CronSchedule
from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from effivmt.errors import ParamsError
from flows.nightly import nightly


def check_schedule(cron: str, timezone: str) -> datetime:
    """The next time of a cron expression; ParamsError where it, or the timezone, is none."""
    try:
        schedule = CronSchedule(cron=cron, timezone=timezone)
        return asyncio.run(schedule.get_dates(1, datetime.now(UTC)))[0].astimezone(ZoneInfo(timezone))
    except ValidationError as error:
        if error.errors()[0]["loc"] == ("timezone",):
            raise ParamsError(f"--timezone {timezone!r} is unknown; give an IANA name such as Europe/Berlin") from error
        raise ParamsError(
            f"--cron {cron!r} is no cron expression; expected minute, hour, day, month and weekday, such as '0 2 * * *'"
        ) from error


def serve(name: str, cron: str, timezone: str, parameters: Mapping[str, object]) -> None:
    """Serves the deployment `nightly/<name>` until SIGINT or SIGTERM, one run at a time; then pauses its schedule."""
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
    serving = asyncio.create_task(runner.start(webserver=False))
    await asyncio.sleep(0)  # it has set its own signal handlers, which stop in the middle of things
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    with suppress(asyncio.CancelledError):
        await serving
