"""Keeps the notes and progress bars of the model libraries off the terminal."""

import diffusers.utils.logging
import transformers.utils.logging


def silence_libraries() -> None:
    """Silences diffusers and transformers: callers show progress of their own, and errors are raised."""
    for library in (transformers.utils.logging, diffusers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
