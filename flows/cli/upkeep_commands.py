"""Commands about the installation and the embedded models: doctor and pretrain."""

from pathlib import Path
from typing import Annotated

import typer

from effivmt_flows.cli.options import CATALOG, STORE, Overrides, ParamsSource, StoreFolder, load_params


def doctor(params: ParamsSource = None, store: StoreFolder = STORE, overrides: Overrides = []) -> None:  # noqa: B006
    """Checks the installation and says what to fix."""
    from rich.text import Text

    from effivmt_flows.cli.doctor import examine
    from effivmt_flows.cli.tables import results_console

    console, faults = results_console(), 0
    for check in examine(params, overrides, store):
        faults += not check.ok
        mark = Text("OK   ", "green") if check.ok else Text("FAULT", "red")
        console.print(Text.assemble(mark, f" {check.name}: {check.text}"), soft_wrap=True)
    if faults:
        raise typer.Exit(1)


def pretrain(
    step: Annotated[
        str,
        typer.Argument(
            metavar="STEP",
            help="autoencoder, latents, transformer, scorer, assemble, judge, transfer, images, parts or experts.",
        ),
    ],
    work: Annotated[Path, typer.Option(metavar="DIR", help="Keeps the state between steps.")] = Path(
        ".effivmt/pretrain"
    ),
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder that assemble writes and judge reads.")] = Path(
        "out/wan-tiny"
    ),
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Trained weights to go on from: a backbone folder (transformer; autoencoder, whose decoder alone is"
            " trained) or a scorer folder.",
        ),
    ] = None,
    plan: Annotated[str, typer.Option(metavar="NAME", help="How much is trained: processor or gpu.")] = "processor",
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where training runs: auto, cpu, cuda or cuda:N.")
    ] = "auto",
    samples: Annotated[int, typer.Option(metavar="N", min=4, help="Clips that judge draws; images of images.")] = 64,
    captions: Annotated[bool, typer.Option("--captions", help="Says in the prompts of images what they show.")] = False,
    catalog: Annotated[Path, typer.Option(metavar="FILE", help="The clips of transfer and images.")] = CATALOG,
    params: ParamsSource = None,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Trains the embedded models, one step at a time; a step that was stopped goes on.

    judge reads what the backbone in --out draws, in clips of ingest.num_frames; transfer, what the params' backbone
    makes of a catalog's motions; images, what it makes of four motions in videos that begin with images; parts, what
    it makes of one motion of two, and of the motions of two clips together. experts makes a tiny Wan 2.2 A14B, for
    trials: it writes to --out the backbone folder --start, or wan-tiny, with two transformers, tuned apart.
    """
    from effivmt_flows.cli.pretrain import run_judge, run_step

    if step == "judge":
        run_judge(out, samples, load_params(params, overrides), work / "judge.png")
    elif step == "transfer":
        from effivmt_flows.cli.pretrain_transfer import run_transfer

        run_transfer(catalog, load_params(params, overrides), store)
    elif step == "images":
        from effivmt_flows.cli.pretrain_images import run_images

        settings = load_params(params, overrides)
        run_images(catalog, work / "images", settings, store, count=samples, captions=captions)
    elif step == "parts":
        from effivmt_flows.cli.pretrain_parts import run_parts

        run_parts(work / "parts", load_params(params, overrides), store)
    elif step == "experts":
        from effivmt_flows.cli.pretrain_experts import run_experts

        run_experts(start, out, device=device)
    else:
        run_step(step, work, out, plan=plan, device=device, start=start)
