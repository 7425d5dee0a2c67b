"""The command line under trial: in this process, or as one of its own whose time and memory are measured."""

import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from effivmt_flows.cli.main import main

COMMAND = "import sys; from effivmt_flows.cli.main import main; sys.exit(main(sys.argv[1:]))"

PEAKS: list[int] = []
"""Peak memory (bytes) of the processes that the test at work has measured."""

WATCHED = """
import atexit, pathlib
atexit.register(lambda: pathlib.Path({!r}).write_text(pathlib.Path("/proc/self/status").read_text()))
"""


@dataclass
class Tries:
    """How many tries a test makes: one, unless it counts them itself."""

    counted: int = 0

    def __call__(self, count: int = 1) -> None:
        self.counted += count


@dataclass(frozen=True)
class Ended:
    """How a command ended; `seconds` of processor time and `peak` memory in bytes where it had a process of its own."""

    code: int
    out: str
    err: str
    seconds: float = 0.0
    peak: int = 0

    @property
    def fault(self) -> str:
        """The one line on stderr."""
        assert self.err.count("\n") == 1 and "Traceback" not in self.err, self.err
        return self.err.rstrip("\n")


def effivmt(*arguments: object) -> Ended:
    """Runs the command line in this process."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Ended(code, out.getvalue(), err.getvalue())


def measured(folder: Path, *arguments: object, code: str = COMMAND) -> Ended:
    """Runs Python code, by default the command line, in a process of its own.

    Its peak is what the kernel counts from its start on: getrusage counts the process that it was forked from too.
    """
    code = f"{WATCHED.format(str(folder / 'peak'))}\n{code}"
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=out, stderr=err)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    texts = [(folder / name).read_text(encoding="utf-8", errors="replace") for name in ("stdout", "stderr")]
    (peak,) = (line.split()[1] for line in (folder / "peak").read_text().splitlines() if line.startswith("VmHWM"))
    PEAKS.append(int(peak) * 1024)
    return Ended(process.returncode, *texts, usage.ru_utime + usage.ru_stime, PEAKS[-1])
