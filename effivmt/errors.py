"""Errors a user can cause: each says what was given, what was expected and what to do."""

import traceback
import unicodedata
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


class DiskFullError(StoreError):
    """The disk of the store or of an output is full; what was done so far stays, and a rerun goes on from it."""


class DamageError(StoreError):
    """A file of the store was damaged and is dropped, so that the next run makes it again.

    stage: that made it, empty for a checkpoint; path: the file; fault: as "is missing".
    """

    def __init__(self, stage: str, path: Path, fault: str) -> None:
        super().__init__(stage, path, fault)
        self.stage, self.path, self.fault = stage, path, fault

    def __str__(self) -> str:
        return f"{self.path} {self.fault}: it is dropped, and made again"


class BackboneError(EffiVMTError):
    """A backbone folder is unreadable or of a kind that the method does not support."""


class AdapterError(EffiVMTError):
    """An adapter folder is damaged, empty, or belongs to another backbone."""


_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    """A text that a terminal or a log shows as it is: characters that control, reorder or hide become escapes.

    These are control and format characters, line separators and lone surrogates, but not the joiners that scripts and
    emoji need.
    """
    return "".join(
        character
        if unicodedata.category(character) not in _UNSEEN or character in _JOINERS
        else character.encode("unicode_escape").decode()
        for character in text
    )


def in_one_line(error: BaseException) -> str:
    """An error as one line: its message and, for an unexpected error, its type and place in the code."""
    text = printable(" ".join(str(error).split()))
    if isinstance(error, EffiVMTError):
        return text
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text[:500]} ({Path(place.filename).name}:{place.lineno})"
