"""The command line, called in this process."""

import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO

from effivmt.pipeline.stages import STAGES
from effivmt_flows.cli.main import main

CAPTION = "a red square on a navy background"
PROMPTS = ("a green circle on a gray background", "a yellow star on a black background")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def outcomes(self) -> dict[str, str]:
        """Stage -> "hit" or "done", from stderr, where a log worker of Prefect's may write between our lines."""
        return dict(re.findall(rf"({'|'.join(STAGES)}): (hit|done) in [0-9.]+ s", self.err))


def effivmt(*arguments: object) -> Ended:
    """Runs the command line in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Ended(code, out.getvalue(), err.getvalue())
