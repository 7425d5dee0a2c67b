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
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # its first start builds a database
}
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)
