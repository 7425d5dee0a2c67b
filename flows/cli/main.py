"""The command line. Each command imports what it needs when it runs, so that `--help` answers at once."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from effivmt.errors import EffiVMTError, ParamsError, in_one_line, printable
from effivmt.store.disk_errors import FULL_REMEDY, is_full
from effivmt.versions import __version__
from effivmt_flows.cli import (
    bench_commands,
    catalog_commands,
    clip_commands,
    merge_commands,
    picture_commands,
    plan_commands,
    registry_commands,
    store_commands,
    upkeep_commands,
)
from effivmt_flows.cli.examples import EXAMPLES
from effivmt_flows.cli.settings import read_settings
from effivmt_flows.cli.stopping import stopped_by_signals

ENGINE = ("httpx", "httpcore", "prefect", "websockets")
"""The packages whose errors come from Prefect's server: whatever else raises them turns them into our own."""
INTERRUPTED = 130
"""The exit code that typer gives a command that KeyboardInterrupt has ended."""
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"effivmt {__version__}")
        raise typer.Exit


@app.callback()
def effivmt(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Prints the version.")
    ] = False,
) -> None:
    """Motion transfer for Wan video diffusion transformers (EffiVMT, arXiv 2506.05207)."""
    settings = read_settings(Path("pyproject.toml"))
    context.default_map = {command.__name__: settings for command in COMMANDS}


COMMANDS = (
    clip_commands.demo,
    clip_commands.transfer,
    catalog_commands.new,
    catalog_commands.run,
    catalog_commands.serve,
    catalog_commands.stage,
    clip_commands.render,
    merge_commands.merge,
    clip_commands.evaluate,
    plan_commands.plan,
    picture_commands.animate,
    bench_commands.bench,
    registry_commands.pull,
    registry_commands.sync,
    upkeep_commands.doctor,
    upkeep_commands.pretrain,
)
for _command in COMMANDS:
    app.command(epilog=f"Example: {EXAMPLES[_command.__name__]}")(_command)
app.add_typer(store_commands.app, name="store")


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns 0 done, 1 failed, 2 bad usage or params, 130, 143 or 129 stopped by a signal.

    Idle threads spin for some microseconds and then sleep. Beside another busy process, spinning ones make small models
    crawl; threads that sleep at once take twice as long to tune wan-tiny on two idle cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        with stopped_by_signals() as stop:
            app(arguments, prog_name="effivmt")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            with suppress(OSError):  # the terminal may be gone
                print("stopped; run the same command again to go on", file=sys.stderr)
            return stop.exit_code
        return end.code if isinstance(end.code, int) else 0
    except EffiVMTError as error:
        print("error: " + "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
        return 2 if isinstance(error, ParamsError) else 1
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package.startswith("effivmt"):  # ours are always installed
            raise
        print(f'error: this needs the package {package}: pip install "effivmt[full]"', file=sys.stderr)
        return 1
    except Exception as error:
        if is_full(error):
            print(f"error: {FULL_REMEDY} ({in_one_line(error)})", file=sys.stderr)
        elif type(error).__module__.partition(".")[0] in ENGINE:
            print(
                f"error: Prefect's server has gone or failed ({in_one_line(error)}); what is done is in the store: the "
                "same command goes on when the server is back, or with --engine local",
                file=sys.stderr,
            )
        else:
            raise
        return 1
    return 0
