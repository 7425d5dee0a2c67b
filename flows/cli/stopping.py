"""Signals that end a command: SIGTERM and SIGHUP stop it as Ctrl-C does, and the exit code tells which one it was."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGHUP)


@dataclass
class Stop:
    """The signal that has stopped the command; SIGINT until there is another."""

    number: signal.Signals = signal.SIGINT

    @property
    def exit_code(self) -> int:
        """What shells report of a program that the signal has ended: 130, 143 or 129."""
        return 128 + self.number


@contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """While the context lasts, the first SIGTERM or SIGHUP raises KeyboardInterrupt, so that locks and files are freed.

    A further one is ignored: it would cut that short. A signal that the caller ignores (as nohup does) stays ignored.
    """
    stop = Stop()

    def interrupt(number: int, _: FrameType | None) -> None:
        if stop.number == signal.SIGINT:
            stop.number = signal.Signals(number)
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in STOPPING}
    in_main_thread = threading.current_thread() is threading.main_thread()  # no other can set handlers
    caught = [number for number, handler in before.items() if in_main_thread and handler is not signal.SIG_IGN]
    try:
        for number in caught:
            signal.signal(number, interrupt)
        yield stop
    finally:
        for number in caught:
            signal.signal(number, before[number])
