"""Work that meets damage in the store begins again, as its stages make again what was damaged."""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from effivmt.errors import DamageError
from effivmt.pipeline.callbacks import Callback

TRIES = 3
"""How often one and the same file may be found damaged: then the disk itself is at fault."""


def heal(callback: Callback) -> Iterator[AbstractContextManager[None]]:
    """Contexts for work that runs stages: another one, and a word to the callback, as long as one meets damage.

        for trial in heal(callback):
            with trial:
                ...

    What is damaged has been dropped by then and what is whole is a hit, so only the stages from the damage on run
    again. Raises the DamageError where a file is damaged for the third time.
    """
    met: Counter[Path] = Counter()
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

    while not whole:
        yield trial()
