"""Output where there is no terminal: tables that are not folded, and numbered lines with the time that is left."""

import os
import sys
import time
from datetime import timedelta

from rich.console import Console

_WIDTH = 160


def results_console() -> Console:
    """The console of stdout: as wide as the terminal, or as COLUMNS says, or else wide enough for every table."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if known else _WIDTH)


class NumberedLines:
    """Lines on stderr, one for each piece of work that ends."""

    def __init__(self, total: int) -> None:
        """For `total` pieces, the first of which begins now."""
        self._done, self._total, self._begun = 0, total, time.monotonic()

    def ended(self, text: str) -> None:
        """Prints `[done/total] text`, and about how long the others take if each takes as long as those so far."""
        self._done += 1
        line = f"[{self._done}/{self._total}] {text}"
        if others := self._total - self._done:
            left = (time.monotonic() - self._begun) / self._done * others
            line += f"; about {timedelta(seconds=round(left))} left"
        print(line, file=sys.stderr, flush=True)
