"""The engines around the stages: Prefect, Dask and MLflow. They read these settings when they are imported."""

import os

SETTINGS = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a server that is gone is reported within seconds, not minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "PREFECT_CLIENT_MAX_RETRIES": "3",  # of a request, in 14 s; five, which is the default, take a minute
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",  # a page for every event that a server that is gone does not take
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the command line tells the user; the server gets all logs
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",  # whatever a profile says that names no server
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "600",  # its first start makes a database
}
LOOPBACK = "localhost,127.0.0.1,::1"
"""Hosts that no proxy of the environment is asked for: servers of this machine."""
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)
if any(_name.lower() in ("http_proxy", "https_proxy", "all_proxy") for _name in os.environ):
    _exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if _exempt != "*" and not _exempt.endswith(LOOPBACK):
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{_exempt},{LOOPBACK}".strip(",")
