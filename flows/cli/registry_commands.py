"""Commands about MLflow: pull and sync."""

from pathlib import Path
from typing import Annotated

import typer


def pull(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="models:/NAME@ALIAS or models:/NAME/VERSION.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The adapter's folder, which must not exist yet.")],
) -> None:
    """Brings an adapter from MLflow's registry here and verifies every byte."""
    from effivmt_flows.cli.terminal import say
    from effivmt_tasks.tracking.pull import pull as fetch

    say(fetch(adapter, out))


def sync(
    out: Annotated[Path, typer.Argument(metavar="[OUT]", help="A folder that runs have written.")] = Path("out"),
) -> None:
    """Records in MLflow what runs could not, or did not, record there."""
    from effivmt_flows.cli.terminal import say
    from effivmt_tasks.tracking.location import public_uri, tracking_uri
    from effivmt_tasks.tracking.recorder import sync as record_pending

    uri, recorded, failed = tracking_uri(), 0, 0
    for folder, reason in record_pending(uri, out):
        recorded, failed = recorded + (not reason), failed + bool(reason)
        say(f"{folder}: {reason or 'recorded'}")
    say(f"{recorded} recorded, {failed} failed at {public_uri(uri)}" if recorded + failed else "nothing is pending")
    if failed:
        raise typer.Exit(1)
