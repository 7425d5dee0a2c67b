"""The Prefect server of a run: the one that PREFECT_API_URL names, else one that lives as long as this process."""

import signal

from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings

from effivmt.errors import EffiVMTError


def reach_server() -> None:
    """Starts the server where it is our own; EffiVMTError where none answers.

    Our own inherits a mask that keeps Ctrl-C from it: it must outlive the run that it has to record as stopped.
    """
    named = get_current_settings().api.url
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True) as client:
            fault = client.api_healthcheck()
    except RuntimeError as error:
        fault = error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if fault is not None:
        raise EffiVMTError(
            f"Prefect's server {named or 'in this process'} does not answer ({' '.join(str(fault).split())}); start it "
            "with `prefect server start`, unset PREFECT_API_URL, or run without an engine: --engine local"
        ) from fault
