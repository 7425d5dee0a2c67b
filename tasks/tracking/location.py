"""Where MLflow keeps its runs and models; known without importing it."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from effivmt.errors import EffiVMTError

DEFAULT_URI = "sqlite:///mlflow.db"
PATIENCE = 5
"""Seconds within which a server must say that it is well."""


def tracking_uri() -> str:
    """The environment's MLFLOW_TRACKING_URI, else an SQLite file in the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def database_file(uri: str) -> Path | None:
    """The SQLite file of a tracking URI, absolute; None for a server or another database."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def public_uri(uri: str) -> str:
    """The tracking URI as it may be shown and kept: an SQLite file by its absolute path, and no password."""
    if (file := database_file(uri)) is not None:
        return f"sqlite:///{file}"
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")


def check_reachable(uri: str) -> None:
    """Raises EffiVMTError where MLflow's server does not answer, or its SQLite file cannot be written.

    A server is asked as MLflow's own client asks it: with its variables for certificates and passwords, and proxies.
    """
    if not uri.startswith(("http://", "https://")):
        check_writable(uri)
        return
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    credentials = get_default_host_creds(uri.rstrip("/"))
    try:
        answer = http_request(
            credentials, "/health", "GET", max_retries=0, timeout=PATIENCE, raise_on_status=False, retry_codes=()
        )
    except (MlflowException, OSError, ValueError) as error:
        reason = _reason(error)
        advice = "start it, or set MLFLOW_TRACKING_URI"
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            advice = "name the certificate that it is to be checked with in MLFLOW_TRACKING_SERVER_CERT_PATH"
        raise EffiVMTError(f"MLflow's server {public_uri(uri)} does not answer ({reason}); {advice}") from error
    if answer.status_code >= 500:  # others ask for a password or know no such page, and so are there
        raise EffiVMTError(f"MLflow's server {public_uri(uri)} answers with an error ({answer.status_code})")


def _reason(error: BaseException) -> str:
    """The innermost cause in the text of an error of the HTTP client, which may also hold the password of the URI."""
    text = " ".join(str(error).split()).rpartition("Caused by ")[2]
    return re.sub(r"//[^/@\s]*@", "//", text)[:200]


def check_writable(uri: str) -> None:
    """Raises EffiVMTError where an SQLite tracking URI cannot be written: MLflow itself would try again for an hour."""
    file = database_file(uri)
    if file is None:
        return
    folder = file.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))):
        raise EffiVMTError(
            f"MLflow cannot write {file}; set MLFLOW_TRACKING_URI to a place that can be written, such as "
            "sqlite:////home/me/mlflow.db"
        )
