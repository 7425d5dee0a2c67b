"""Imports what the stages import when they run, so that it can happen while something else is waited for."""

from importlib import import_module

_MODULES = (
    "effivmt.method.backbone",
    "effivmt.method.tuning",
    "effivmt.method.rendering",
    "effivmt.evaluation.measure",
)


def import_models() -> None:
    """Imports torch, diffusers, transformers and the method; it takes some seconds once in a process."""
    for name in _MODULES:
        import_module(name)
