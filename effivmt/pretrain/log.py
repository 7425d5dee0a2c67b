"""The log of a training loop. Values are read from the device only now and then, since a read waits for the GPU."""

import torch

EVERY = 50
"""Steps between two reports of a loop on a GPU; on a processor every step is reported."""


class Log:
    """The figures of each step by name; `done`, the log of the steps before, is extended in place."""

    def __init__(self, done: dict[str, list[float]], device: torch.device) -> None:
        self._read, self._every = done, 1 if device.type == "cpu" else EVERY
        self._unread: list[dict[str, torch.Tensor | float]] = []

    def add(self, **figures: torch.Tensor | float) -> None:
        """Takes the figures of one step, scalars; the same names and types every time."""
        self._unread.append(figures)

    def due(self, step: int) -> bool:
        """Whether the figures are worth a report after `step` steps."""
        return step % self._every == 0

    def read(self) -> dict[str, list[float]]:
        """All figures so far, in steps' order, rounded to six places."""
        for name in self._unread[0] if self._unread else ():
            column = [figures[name] for figures in self._unread]
            tensors = [figure for figure in column if isinstance(figure, torch.Tensor)]
            numbers = [figure for figure in column if not isinstance(figure, torch.Tensor)]
            values = torch.stack(tensors).tolist() if tensors else numbers
            self._read.setdefault(name, []).extend(round(value, 6) for value in values)
        self._unread = []
        return self._read

    def newest(self) -> dict[str, float]:
        """The figures of the last step."""
        return {name: values[-1] for name, values in self.read().items()}
