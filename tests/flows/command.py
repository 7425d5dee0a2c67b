"""The command line, called in this process."""

from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO

from flows.cli import main

CAPTION = "a red square on a navy background"
PROMPTS = ("a green circle on a gray background", "a yellow star on a black background")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def outcomes(self) -> dict[str, str]:
        """Stage -> "hit" or "done", from the lines on stderr."""
        lines = [line.split(": ", 1) for line in self.err.splitlines() if " in " in line]
        return {stage: rest.split()[0] for stage, rest in lines}


def effivmt(*arguments: object) -> Ended:
    """Runs the command line in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Ended(code, out.getvalue(), err.getvalue())
