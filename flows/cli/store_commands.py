"""The commands `store ls`, `du`, `prune` and `push`: what the store holds, what of it can go, and what to publish."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from effivmt.errors import ParamsError
from effivmt_flows.cli.options import STORE, Overrides, ParamsSource, StoreFolder, load_params

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Lists, measures, prunes and publishes the store.")


@app.command()
def ls(store: StoreFolder = STORE) -> None:
    """Lists all artifacts, the least recently used first, and what running or stopped stages have left."""
    from rich.filesize import decimal
    from rich.table import Table

    from effivmt.store.upkeep import list_entries
    from effivmt_flows.cli.tables import duration, moment, results_console

    table = Table("stage", "key")
    for heading in ("size", "made in", "last used"):
        table.add_column(heading, justify="right")
    for entry in list_entries(store):
        what = f"{entry.stage} (damaged)" if entry.kind == "damaged" else entry.stage or entry.kind
        made_in = duration(entry.seconds) if entry.kind == "artifact" else "–"
        table.add_row(what, entry.key[:12], decimal(entry.size), made_in, moment(entry.used))
    results_console().print(table)


@app.command()
def du(store: StoreFolder = STORE) -> None:
    """Shows how much room each stage's artifacts take, and how long it took to make them."""
    from rich.filesize import decimal
    from rich.table import Table

    from effivmt.store.upkeep import free_bytes, usage
    from effivmt_flows.cli.tables import duration, results_console

    table = Table("what")
    for heading in ("count", "size", "made in"):
        table.add_column(heading, justify="right")
    rows = usage(store)
    for row in rows:
        table.add_row(row.name, str(row.count), decimal(row.size), duration(row.seconds) if row.seconds else "–")
    console = results_console()
    console.print(table)
    total = decimal(sum(row.size for row in rows))
    console.print(f"{total} in {store}; {decimal(free_bytes(store))} free on its disk", soft_wrap=True, markup=False)


@app.command()
def prune(
    keep_days: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Also removes artifacts that nothing has used for N days.")
    ] = None,
    unused_by: Annotated[
        list[Path],
        typer.Option(metavar="CATALOG", help="Also removes artifacts that no run of this catalog needs; repeatable."),
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Shows what would be removed.")] = False,
    params: ParamsSource = None,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Removes damaged artifacts and what killed runs left, and with an option artifacts that are no longer used.

    With both options an artifact goes only where both allow it. What a running process makes stays, and so does what an
    artifact that stays was made of. Example: effivmt store prune --keep-days 30 --unused-by films.csv --dry-run
    """
    from rich.filesize import decimal

    from effivmt.catalog import read_catalog
    from effivmt.pipeline.upkeep import needed_by
    from effivmt.pipeline.workspace import open_workspace
    from effivmt.store import upkeep
    from effivmt_flows.cli.progress import damage_notices
    from effivmt_flows.cli.tables import moment
    from effivmt_flows.cli.terminal import say

    if not unused_by and (params is not None or overrides):
        raise ParamsError(
            "--params and --set are those of the catalogs of --unused-by; name a catalog, or leave them out"
        )
    entries, needed = upkeep.list_entries(store), None
    if unused_by:
        catalogs = [read_catalog(path) for path in unused_by]
        work = open_workspace(
            load_params(params, overrides), store, callback=damage_notices(quiet=False), weights=False
        )
        needed = needed_by(work, catalogs, entries)
    going = upkeep.removable(entries, keep_days=keep_days, needed=needed)
    freed = removed = 0
    for entry, gone in ((entry, True) for entry in going) if dry_run else upkeep.prune(store, going):
        what = f"{entry.kind} {entry.path} ({decimal(entry.size)}, last used {moment(entry.used)})"
        if gone:
            say(f"{'would remove' if dry_run else 'removed'} {what}")
            removed, freed = removed + 1, freed + entry.size
        elif entry.kind != "unfinished":
            say(f"in use: {what}", sys.stderr)
    say(f"{removed} of {len(entries)} entries, {decimal(freed)}{' would go' if dry_run else ' removed'}")


@app.command()
def push(store: StoreFolder = STORE) -> None:
    """Publishes the artifacts that the remote store (EFFIVMT_REMOTE) lacks, such as those of a run that it missed."""
    from effivmt.store.upkeep import list_entries
    from effivmt_flows.cli.terminal import say
    from effivmt_tasks.stores import REMOTE, open_remote

    remote = open_remote()
    if remote is None:
        raise ParamsError(f"{REMOTE} names no remote store; set it to a URL such as s3://bucket/folder")
    remote.check()
    artifacts = [entry for entry in list_entries(store) if entry.kind == "artifact"]
    lacking = [entry for entry in artifacts if not remote.has(entry.stage, entry.key)]
    published = sum(remote.publish(entry.path) for entry in lacking)
    say(f"{published} of {len(artifacts)} artifacts published to {remote.name}; it had {len(artifacts) - len(lacking)}")
    if published < len(lacking):
        raise typer.Exit(1)
