"""The command line. Each command imports what it needs when it runs, so that `--help` answers at once."""

import os
import sys

import typer

from effivmt.errors import EffiVMTError, ParamsError
from effivmt_flows.cli import bench as bench_command
from effivmt_flows.cli import catalog_commands, clip_commands, registry_commands, upkeep_commands

INTERRUPTED = 130
app = typer.Typer(
    help="Motion transfer for Wan-2.1 video diffusion transformers (EffiVMT, arXiv 2506.05207).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

COMMANDS = (
    clip_commands.transfer,
    catalog_commands.run,
    catalog_commands.serve,
    catalog_commands.stage,
    clip_commands.render,
    clip_commands.evaluate,
    bench_command.bench,
    registry_commands.pull,
    registry_commands.sync,
    upkeep_commands.doctor,
    upkeep_commands.pretrain,
)
for _command in COMMANDS:
    app.command()(_command)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns 0 done, 1 failed, 2 bad usage or params, 130 stopped by the user.

    Idle threads sleep instead of spinning: beside another busy process, spinning ones make small models crawl.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(arguments, prog_name="effivmt")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("stopped; run the same command again to go on", file=sys.stderr)
        return end.code or 0
    except EffiVMTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ParamsError) else 1
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("flows", "tasks", "effivmt"):  # ours are always there
            raise
        print(f'error: this needs the package {package}: pip install "effivmt[full]"', file=sys.stderr)
        return 1
    return 0
