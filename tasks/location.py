"""Where MLflow keeps its runs; known without importing it."""

import os
from pathlib import Path

from effivmt.errors import EffiVMTError

DEFAULT_URI = "sqlite:///mlflow.db"


def tracking_uri() -> str:
    """The environment's MLFLOW_TRACKING_URI, else an SQLite file in the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def database_file(uri: str) -> Path | None:
    """The SQLite file of a tracking URI, absolute; None for a server or another database."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def check_writable(uri: str) -> None:
    """Raises EffiVMTError where an SQLite tracking URI cannot be written: MLflow itself would try again for an hour."""
    file = database_file(uri)
    if file is None:
        return
    folder = file.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))):
        raise EffiVMTError(
            f"MLflow cannot write {file}; set MLFLOW_TRACKING_URI to a place that can be written, such as "
            "sqlite:////home/me/mlflow.db, or run without an engine: --engine local"
        )
