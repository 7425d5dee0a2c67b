"""The Prefect server of a run: the one that PREFECT_API_URL names, else an ephemeral one of this process."""

import signal

from prefect.client.orchestration import get_client
from prefect.settings import get_current_settings

from effivmt.errors import EffiVMTError, ParamsError
from effivmt_tasks.outage import expect_outage


def reach_server(*, needed_by: str = "") -> None:
    """Waits for the named server, or starts our own; EffiVMTError where none answers.

    needed_by: the option that needs a persistent server, because it schedules runs or other processes connect to it;
    without PREFECT_API_URL that is a ParamsError. Our own server inherits a signal mask without SIGINT: it must outlive
    the run, to record that Ctrl-C stopped it.
    """
    named = get_current_settings().api.url
    if needed_by and not named:
        raise ParamsError(
            f"{needed_by} needs a persistent Prefect server: start one with `prefect server start` and set "
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
    expect_outage()
    if fault is not None:
        other = "" if needed_by else ", unset PREFECT_API_URL, or run without an engine: --engine local"
        raise EffiVMTError(
            f"Prefect's server {named or 'in this process'} does not answer ({' '.join(str(fault).split())}); start it "
            f"with `prefect server start`{other}"
        ) from fault
