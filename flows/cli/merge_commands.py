"""The command `merge`, and what `render` shares with it: adapters by name, and a strength for each."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effivmt.errors import EffiVMTError, ParamsError
from effivmt_flows.cli.options import STORE, ParamsSource, StoreFolder, load_params

if TYPE_CHECKING:
    from effivmt.pipeline.stages import Strengths

MOST = 4.0
"""Largest strength of a LoRA."""


def merge(
    adapters: Annotated[
        list[str], typer.Argument(metavar="ADAPTER...", help="Folders, models:/NAME@ALIAS or models:/NAME/VERSION.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The adapter folder to write, which must not exist yet.")],
    appearance: Annotated[
        list[float], typer.Option(metavar="X", help="Strength of an adapter's looks, one for each; default 1.")
    ] = [],  # noqa: B006
    motion: Annotated[
        list[float], typer.Option(metavar="X", help="Strength of an adapter's motion, one for each; default 1.")
    ] = [],  # noqa: B006
    params: ParamsSource = None,
    store: StoreFolder = STORE,
) -> None:
    """Adds adapters of one backbone up to one adapter, which loads as any; it has no region."""
    from effivmt.method.adapter_manifest import REGION, read_facts
    from effivmt.pipeline import stages
    from effivmt.pipeline.healing import heal
    from effivmt.pipeline.workspace import open_workspace
    from effivmt.store.files import export_folder
    from effivmt_flows.cli.progress import damage_notices
    from effivmt_flows.cli.terminal import say

    strengths = strengths_of(len(adapters), appearance, motion, default=(1.0, 1.0))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise EffiVMTError(f"--out {out} is in use; choose a folder that does not exist")
    folders, callback = [adapter_folder(adapter, store) for adapter in adapters], damage_notices(quiet=False)
    work = open_workspace(load_params(params, []), store, callback=callback, weights=False)
    for trial in heal(callback):
        with trial:
            export_folder(stages.merge(work, folders, strengths), "adapter", out)
    if regional := [str(folder) for folder in folders if REGION in read_facts(folder)["files"]]:
        notice = f"{', '.join(regional)}: the region is left out, a sum has none; render adapters together to use it"
        say(notice, sys.stderr)
    say(out)


def strengths_of(
    count: int, appearance: Sequence[float], motion: Sequence[float], *, default: tuple[float, float]
) -> list["Strengths"]:
    """Strengths of `count` adapters, given once for all or once for each, else the default; ParamsError otherwise."""
    from effivmt.pipeline.stages import Strengths

    given = {"--appearance": list(appearance) or [default[0]], "--motion": list(motion) or [default[1]]}
    for option, values in given.items():
        if len(values) not in (1, count):
            raise ParamsError(
                f"{option} is given {len(values)} times for {count} adapters: give it once for all, or once for each, "
                "in their order"
            )
        if wrong := [value for value in values if not 0 <= value <= MOST]:
            raise ParamsError(f"{option} is {wrong[0]:g}: expected a strength from 0 to {MOST:g}")
    each = [values * count if len(values) == 1 else values for values in given.values()]
    return [Strengths(looks, moves) for looks, moves in zip(*each, strict=True)]


def adapter_folder(adapter: str, store: Path) -> Path:
    """The folder of an adapter: itself, or where the registered model was pulled to."""
    from effivmt_tasks.tracking.pull import PREFIX, pull_to_cache

    return pull_to_cache(adapter, store / "pulled") if adapter.startswith(PREFIX) else Path(adapter)
