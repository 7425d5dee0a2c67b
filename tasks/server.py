"""The Prefect server of a run: the one that PREFECT_API_URL names, else one that lives as long as this process."""

import signal

from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings

from effivmt.errors import EffiVMTError, ParamsError


def reach_server(*, of_its_own: str = "") -> None:
    """Starts the server where it is our own; EffiVMTError where none answers.

    of_its_own: what needs a server that stands by itself, since it schedules or other processes must reach it; without
    PREFECT_API_URL that is a ParamsError. Our own server inherits a mask that keeps Ctrl-C from it: it must outlive the
    run that it has to record as stopped.
    """
    named = get_current_settings().api.url
    if of_its_own and not named:
        raise ParamsError(
            f"{of_its_own} needs a Prefect server that stands by itself: start one with `prefect server start` and set "
            "PREFECT_API_URL=http://HOST:4200/api"
        )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with get_client(sync_client=True) as client:
            fault = client.api_healthcheck()
    except RuntimeError as error:
        fault = error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if fault is not None:
        other = "" if of_its_own else ", unset PREFECT_API_URL, or run without an engine: --engine local"
        raise EffiVMTError(
            f"Prefect's server {named or 'in this process'} does not answer ({' '.join(str(fault).split())}); start it "
            f"with `prefect server start`{other}"
        ) from fault
