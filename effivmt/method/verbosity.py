"""Turns off the log messages and progress bars of the model libraries."""

import diffusers.utils.logging
import transformers.utils.logging


def silence_libraries() -> None:
    """Silences diffusers and transformers below errors; callers show progress of their own."""
    for library in (transformers.utils.logging, diffusers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
