"""Work that meets damage in the store, or a fault that passes, begins again; the store has what was done before it."""

import errno
import gc
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from effivmt.errors import DamageError, in_one_line
from effivmt.pipeline.callbacks import Callback

TRIES = 3
"""How often one and the same file may be found damaged: then the disk itself is at fault."""
PASSING = frozenset(
    {
        errno.EIO,
        errno.EAGAIN,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    }
)
"""Errors of network disks and servers that may pass."""
WAITS = (2.0, 10.0, 60.0)
"""Seconds before each further try after such an error."""
ONCE = (0.0,)
"""The same after a GPU was out of memory: one further try, at once."""


def heal(callback: Callback) -> Iterator[AbstractContextManager[None]]:
    """Contexts for work that runs stages: another one, and a word to the callback, as long as one meets damage.

        for trial in heal(callback):
            with trial:
                ...

    What is damaged has been dropped by then and what is whole is a hit, so only the stages from the damage on run
    again. Raises the DamageError where a file is damaged for the third time. An error that may pass is met by another
    trial, too: up to three after one of a network disk, one after a GPU is out of memory. Any other is raised.
    """
    met: Counter[Path] = Counter()
    failed: Counter[tuple[float, ...]] = Counter()
    whole = False

    @contextmanager
    def trial() -> Iterator[None]:
        nonlocal whole
        try:
            yield
            whole = True
        except DamageError as damage:
            met[damage.path] += 1
            if met[damage.path] == TRIES:
                raise
            callback.on_damage(damage)
        except Exception as error:
            waits = _waits(error)
            if failed[waits] == len(waits):
                raise
            wait = waits[failed[waits]]
            failed[waits] += 1
            callback.on_notice(f"{in_one_line(error)}: trying again in {wait:.0f} s")
            time.sleep(wait)

    while not whole:
        if failed[ONCE]:
            _release_memory()
        yield trial()


def _waits(error: BaseException | None) -> tuple[float, ...]:
    """Seconds before each further try after an error, by what it came from; none where each would meet it again."""
    torch = sys.modules.get("torch")
    while error is not None:
        if isinstance(error, OSError) and error.errno in PASSING:
            return WAITS
        if torch is not None and isinstance(error, torch.OutOfMemoryError):
            return ONCE
        error = error.__cause__ or error.__context__
    return ()


def _release_memory() -> None:
    """Gives the memory of what has failed back to the GPU."""
    gc.collect()
    if torch := sys.modules.get("torch"):
        torch.cuda.empty_cache()
