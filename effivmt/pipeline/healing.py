"""Work that meets damage in the store begins again, as the stages make again what was damaged."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from effivmt.errors import DamageError
from effivmt.pipeline.callbacks import Callback

Result = TypeVar("Result")
TRIES = 3
"""How often one and the same file may be found damaged: then the disk itself is at fault."""


def heal(callback: Callback, process: Callable[[], Result]) -> Result:
    """The result of `process`, which runs stages; it is called again, and the callback told, where it meets damage.

    What is damaged has been dropped by then and what is whole is a hit, so only the stages from the damage on run
    again. Raises the DamageError where a file is damaged for the third time.
    """
    met: Counter[Path] = Counter()
    while True:
        try:
            return process()
        except DamageError as damage:
            met[damage.path] += 1
            if met[damage.path] == TRIES:
                raise
            callback.on_damage(damage)
