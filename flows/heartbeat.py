"""A sign of life of a long stage, where no bar shows it."""

import time
from collections.abc import Callable

INTERVAL = 60.0
"""Seconds between two lines."""


class Heartbeat:
    """Says now and then how far a stage is; nothing of one that is shorter than the interval."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """say: receives the lines."""
        self._say, self._stage, self._said = say, "", 0.0

    def moved(self, stage: str, done: int, total: int) -> None:
        """A stage, by the name that the line is to have, has done `done` of `total` units of work."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._said = stage, now
        elif now - self._said >= INTERVAL:
            self._said = now
            self._say(f"{stage}: {done} of {total}")
