"""What reaches the terminal: texts from files and prompts lose their control characters here."""

import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, RenderHook, RenderResult
from rich.segment import Segment

from effivmt.errors import printable


def say(text: object, file: TextIO | None = None) -> None:
    """Prints one line on stdout or `file`, at once, with control characters escaped."""
    print(printable(str(text)), file=file or sys.stdout, flush=True)


def open_console(*, stderr: bool = False, highlight: bool = True, width: int | None = None) -> Console:
    """A console that escapes the control characters in everything it prints; the colours are its own."""
    console = Console(stderr=stderr, highlight=highlight, width=width)
    console.push_render_hook(_Escaping())
    return console


class _Escaping(RenderHook):
    """Wraps what a console is about to print."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """The renderables with the texts in them escaped."""
        return [_Escaped(renderable) for renderable in renderables]


class _Escaped:
    """A renderable whose texts have their control characters escaped."""

    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _escaped(console.render(Group(self._renderable), options))


def _escaped(segments: Iterable[Segment]) -> Iterator[Segment]:
    for segment in segments:
        lines = segment.text if segment.control else "\n".join(map(printable, segment.text.split("\n")))
        yield Segment(lines, segment.style, segment.control)
