"""Imports what a run imports later, so that it can happen while Prefect's own server starts."""

from importlib import import_module

_MODULES = (
    "effivmt.method.backbone",
    "effivmt.method.tuning",
    "effivmt.method.rendering",
    "effivmt.evaluation.measure",
    "effivmt_tasks.tracking.runs",
    "mlflow.tracking",
    "mlflow.store.tracking.sqlalchemy_store",
)


def import_libraries() -> None:
    """Imports torch, diffusers, transformers and MLflow; it takes some seconds once in a process."""
    for name in _MODULES:
        import_module(name)
