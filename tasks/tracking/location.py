"""Where MLflow keeps its runs and models; known without importing it."""

import os
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import urlopen

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
    """Raises EffiVMTError where MLflow's server does not answer, or its SQLite file cannot be written."""
    if not uri.startswith(("http://", "https://")):
        check_writable(uri)
        return
    try:
        urlopen(f"{public_uri(uri)}/health", timeout=PATIENCE).close()
    except HTTPError as error:
        if error.code >= 500:  # others ask for a password or know no such page, and so are there
            raise EffiVMTError(f"MLflow's server {public_uri(uri)} answers with an error ({error})") from error
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise EffiVMTError(
            f"MLflow's server {public_uri(uri)} does not answer ({reason}); start it, or set MLFLOW_TRACKING_URI"
        ) from error


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
