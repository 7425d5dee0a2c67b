"""Control characters are escaped wherever they are printed, and SIGTERM and SIGHUP end a command as Ctrl-C does."""

import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest
import yaml
from rich.text import Text
from trial import COMMAND, effivmt

from effivmt.errors import EffiVMTError, in_one_line, printable
from effivmt.evaluation.metrics import METRICS
from effivmt.pipeline.outcomes import ClipOutcome
from effivmt_flows.cli.progress import ClipLines
from effivmt_flows.cli.tables import metrics_table
from effivmt_flows.cli.terminal import open_console, say

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\u202egpj.\x9b31m\ud800"
SEEN = "\\x1b]0;owned\\x07\\x1b[2J\\r\\u202egpj.\\x9b31m\\ud800"


class TestEscaping:
    def test_keeps_what_people_write(self):
        for text in ("ein Würfel – rot", "赤い四角　青い円", "می‌خواهم", "👩‍🚀 ❤️", "a\u00a0b"):
            assert printable(text) == text

    def test_shows_what_controls_a_terminal(self):
        assert printable(HOSTILE) == SEEN
        assert in_one_line(EffiVMTError(f"a\nb {HOSTILE}")) == "a b " + SEEN.replace("\\r", " ")

    def test_of_an_error(self, tmp_path):
        ended = effivmt("run", tmp_path / "\x1b[2J\u202e.csv", "--store", tmp_path / "store")
        assert ended.code == 2 and "\x1b" not in ended.err and "\\x1b[2J\\u202e.csv cannot be read" in ended.fault

    def test_of_a_bad_argument(self):
        for arguments in (("\x1b[2J",), ("run", "--\x1b[2J"), ("run", "--engine", "\x1b[2J"), ("run", "a", "b\x1b[2J")):
            ended = effivmt(*arguments)
            assert ended.code == 2 and "\x1b" not in ended.err + ended.out

    def test_of_a_table(self, capsys):
        open_console(width=160).print(metrics_table(f"video.mp4: {HOSTILE}", {"value": {next(iter(METRICS)): 0.5}}))
        out = capsys.readouterr().out
        assert not {"\x1b", "\x9b", "\u202e", "\ud800"} & set(out) and "\\x1b]0;owned" in out and "0.500" in out

    def test_of_a_console_with_colours(self):
        console = open_console()
        console.file, console._color_system, console._force_terminal = StringIO(), None, True  # type: ignore[assignment]
        console.print(Text("red\x1b[2J", "red"))
        assert "\\x1b[2J" in console.file.getvalue()

    def test_of_progress_and_paths(self, capsys):
        failed = ClipOutcome("a", "failed", 1.0, {}, stage="ingest", reason=f"video {HOSTILE}")
        ClipLines(1).on_clip_end(failed)
        say(Path("out/\x1b[2J"))
        ended = capsys.readouterr()
        assert ended.err == f"[1/1] a: failed in 1.0 s: ingest: video {SEEN}\n" and ended.out == "out/\\x1b[2J\n"


HANGING = """
import sys, time
from pathlib import Path
from effivmt.store import Key, Store
from effivmt_flows.cli import main as line

def make(out, scratch):
    print("working", flush=True)
    time.sleep(60)

@line.app.command()
def hang(folder: Path):
    Store(folder).build(Key("ingest", 1, {}, {}, "x"), make)

sys.exit(line.main(["hang", sys.argv[1]]))
"""


def stopped(folder: Path, number: signal.Signals, *ahead: str) -> tuple[int, str]:
    """Exit code and stderr of a command that holds a lock of the store and gets a signal twice."""
    process = subprocess.Popen(
        [*ahead, sys.executable, "-c", HANGING, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup may run these tests
    )
    assert process.stdout is not None and process.stdout.readline() == "working\n"
    assert list((folder / "locks").iterdir())
    process.send_signal(number)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_a_command(tmp_path, number, code):
    ended = stopped(tmp_path, number)
    assert ended == (code, "stopped; run the same command again to go on\n")
    assert not list((tmp_path / "locks").iterdir()) and not list((tmp_path / "building").iterdir())


def test_a_signal_that_the_caller_ignores_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with redirect_stderr(StringIO()):
            effivmt("--version")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "prefect"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_a_transfer(tmp_path, params, sample_video, engine, number, code):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")), encoding="utf-8")
    words = ["transfer", sample_video, "--caption", "a", "--prompt", "b", "--engine", engine, "--store", "store"]
    words += ["--set", "spatial.steps=100000", "--set", "spatial.save_every=1"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *map(str, words)],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env=os.environ | {"PREFECT_HOME": str(tmp_path / "prefect")},
        )
    deadline = time.monotonic() + 240
    while not list((tmp_path / "store").glob("scratch/*/spatial.safetensors")):
        assert time.monotonic() < deadline and process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(120) == code, (tmp_path / "log").read_text()
    assert "stopped; run the same command again to go on" in (tmp_path / "log").read_text().splitlines()
    assert not list((tmp_path / "store" / "locks").iterdir())
