"""What a process does when Prefect's server goes away while it works: its results do not depend on that server."""

import logging
import time

from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

PAUSE = 30.0
"""Seconds for which events are dropped after one could not be sent. Each would cost 7 s, and a run has 20 a clip."""


def expect_outage() -> None:
    """Makes this process end soon, and without pages of errors, once the server that the settings name is gone."""
    if PREFECT_API_URL.value():
        EventsWorker.set_client_override(_BriefEventsClient)
    logging.raiseExceptions = False  # Prefect says on stderr of each batch of logs that it could not be sent


def server_fault() -> str:
    """What keeps the server of the settings from answering, in one line; empty where it answers."""
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
            fault = client.api_healthcheck()
    except (RuntimeError, ValueError, OSError) as error:
        fault = error
    return "" if fault is None else " ".join(str(fault).split())[:300] or type(fault).__name__


class _BriefEventsClient(PrefectEventsClient):
    """Sends events; those that come soon after one could not be sent are dropped, and with them what Prefect shows."""

    def __init__(self) -> None:
        address = PREFECT_API_URL.value()
        if not address:  # another run of this process has its own server
            from prefect.server.api.server import SubprocessASGIServer  # slow to import

            address = SubprocessASGIServer().api_url
        super().__init__(address)
        self._silent_until = 0.0

    async def _emit(self, event: Event) -> None:
        if time.monotonic() < self._silent_until:
            return
        try:
            await super()._emit(event)
        except Exception:
            self._silent_until = time.monotonic() + PAUSE
            raise
