"""Options that several commands share, and what checks them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from effivmt.errors import ParamsError
from effivmt.store import DEFAULT_STORE

if TYPE_CHECKING:
    from effivmt.config import Params
    from effivmt.pipeline.transfer import TransferMethod

ParamsSource = Annotated[
    str | None,
    typer.Option(
        "--params",
        metavar="NAME|FILE",
        envvar="EFFIVMT_PARAMS",
        help="A preset or a YAML file; default: params.yaml here, else the preset tiny.",
    ),
]
StoreFolder = Annotated[
    Path,
    typer.Option("--store", metavar="DIR", envvar="EFFIVMT_STORE", help="Where artifacts are kept."),
]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides one parameter; repeatable.")
]
OutFolder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Receives a folder for each clip, and the tables.")
]
Force = Annotated[list[str], typer.Option(metavar="STAGE", help="Runs a stage again; repeatable.")]
Engine = Annotated[
    Literal["prefect", "local"],
    typer.Option(envvar="EFFIVMT_ENGINE", help="prefect: shown by Prefect, recorded in MLflow; local: neither."),
]
Runner = Annotated[
    Literal["threads", "dask"],
    typer.Option(envvar="EFFIVMT_RUNNER", help="Where clips run: here, or on a Dask cluster."),
]
Address = Annotated[
    str, typer.Option(metavar="tcp://HOST:PORT", envvar="EFFIVMT_ADDRESS", help="Scheduler of the Dask cluster.")
]
Resource = Annotated[
    str,
    typer.Option(metavar="NAME", envvar="EFFIVMT_RESOURCE", help="Dask resource of which a clip takes one: GPU."),
]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        metavar="NAME|FILE.py",
        help="effivmt, backbone, motion-director, two-stage, ditflow, smm, flow-motion, or a file with one.",
    ),
]
Preview = Annotated[
    bool, typer.Option("--preview", help="Shows videos of the first prompt on the clip's page while it is tuned.")
]
Images = Annotated[
    list[Path],
    typer.Option(
        "--image",
        metavar="FILE",
        help="The image that the video begins with: one for each prompt, which may then be left out or empty.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress; prints only the path of the result.")]
STORE, CATALOG, OUT = DEFAULT_STORE, Path("data/catalog.csv"), Path("out")


def check_stages(names: list[str]) -> None:
    """Raises ParamsError for an unknown stage."""
    from effivmt.pipeline.stages import MASK, STAGES

    known = (*STAGES, MASK)
    if unknown := [stage for stage in names if stage not in known]:
        raise ParamsError(f"--force {unknown[0]}: there is no such stage; expected one of {', '.join(known)}")


def load_params(source: str | None, overrides: list[str]) -> "Params":
    """The params of `--params` with the overrides of `--set`; ParamsError names the field that is wrong."""
    from effivmt import params_file

    return params_file.load_params(source, overrides)


def load_method(
    name: str, source: str | None, overrides: list[str], *, preview: bool, force: list[str], dry_run: bool = False
) -> "tuple[Params, TransferMethod]":
    """The params, and how a clip is transferred by the method of `--method`; ParamsError says which option is wrong."""
    from effivmt.benchmark.method_transfer import choose_method

    check_stages(force)
    if preview:
        overrides = [*overrides, "preview=true"]
    return choose_method(name, source, overrides, force=force, dry_run=dry_run)
