"""Imports what a run imports later, so that it can happen while Prefect's own server starts."""

from contextlib import suppress
from importlib import import_module

_MODULES = (
    "effivmt.method.backbone",
    "effivmt.method.tuning",
    "effivmt.method.rendering",
    "effivmt.evaluation.measure",
)


def import_libraries() -> None:
    """Imports torch, diffusers, transformers and MLflow; it takes some seconds once in a process."""
    for name in _MODULES:
        import_module(name)
    with suppress(Exception):  # a fault of MLflow ends no run: the recorder meets it again, and says what is missing
        import_module("effivmt_tasks.tracking.runs")
