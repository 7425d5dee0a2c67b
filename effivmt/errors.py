"""Errors a user can cause: each says what was given, what was expected and what to do."""

import traceback
from pathlib import Path


class EffiVMTError(ValueError):
    """Base of all errors that the command line prints as one line instead of a traceback."""


class ParamsError(EffiVMTError):
    """A parameter or command-line value is wrong; the message names the field (exit code 2)."""


class CatalogError(ParamsError):
    """A catalog cannot be used; the message lists every fault with its row and column (exit code 2)."""


class VideoError(EffiVMTError):
    """A video or image cannot be used: missing, undecodable, truncated, too short (fails the clip, exit code 1)."""


class StoreError(EffiVMTError):
    """The artifact store is not writable, or an artifact in it is damaged."""


class BackboneError(EffiVMTError):
    """A backbone folder is unreadable or of a kind that the method does not support."""


class AdapterError(EffiVMTError):
    """An adapter folder is damaged, empty, or belongs to another backbone."""


def in_one_line(error: BaseException) -> str:
    """An error as one line: its message and, for an unexpected error, its type and place in the code."""
    text = " ".join(str(error).split())
    if isinstance(error, EffiVMTError):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text[:500]} ({Path(place.filename).name}:{place.lineno})"
