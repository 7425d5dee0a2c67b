"""The command line. Each command imports what it needs when it runs, so that `--help` answers at once."""

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from effivmt.errors import EffiVMTError, ParamsError

if TYPE_CHECKING:
    from effivmt.catalog import Clip

INTERRUPTED = 130
app = typer.Typer(
    help="Motion transfer for Wan-2.1 video diffusion transformers (EffiVMT, arXiv 2506.05207).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ParamsFile = Annotated[Path, typer.Option("--params", metavar="FILE", help="Parameters of all stages.")]
StoreFolder = Annotated[
    Path,
    typer.Option("--store", metavar="DIR", envvar="EFFIVMT_STORE", help="Where artifacts are kept."),
]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides one parameter; repeatable.")
]
Runner = Annotated[Literal["threads", "dask"], typer.Option(help="Where clips run: here, or on a Dask cluster.")]
Address = Annotated[str, typer.Option(metavar="tcp://HOST:PORT", help="Scheduler of the Dask cluster.")]
Resource = Annotated[str, typer.Option(metavar="NAME", help="Dask resource that a clip takes one of, such as GPU.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress; prints only where the result lies.")]
PARAMS, STORE, CATALOG = Path("params.yaml"), Path(".effivmt/store"), Path("data/catalog.csv")


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


@app.command()
def transfer(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="The reference video, whose motion is taken.")],
    caption: Annotated[str, typer.Option(metavar="TEXT", help="What the reference video shows.")],
    prompt: Annotated[list[str], typer.Option(metavar="TEXT", help="What to render with its motion; repeatable.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Receives a folder with all results.")] = Path("out"),
    name: Annotated[str, typer.Option(metavar="ID", help="The clip's id; default: from the file's name.")] = "",
    start: Annotated[float, typer.Option(metavar="SECONDS", help="Where the clip begins in the video.")] = 0.0,
    end: Annotated[float | None, typer.Option(metavar="SECONDS", help="Where the clip ends in the video.")] = None,
    appearance_images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Images to learn the looks from, instead of the clip's frames.")
    ] = None,
    force: Annotated[list[str], typer.Option(metavar="STAGE", help="Runs a stage again; repeatable.")] = [],  # noqa: B006
    engine: Annotated[
        Literal["prefect", "local"], typer.Option(help="prefect: shown by Prefect, recorded in MLflow; local: neither.")
    ] = "prefect",
    params: ParamsFile = PARAMS,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Transfers the motion of one video to new prompts, end to end."""
    settings = _load_params(params, overrides)
    clip = _clip(
        clip=name or re.sub(r"[^A-Za-z0-9_-]+", "-", video.stem).strip("-")[:100],
        video=video,
        caption=caption,
        prompts=tuple(prompt),
        start=start,
        end=end,
        appearance_images=appearance_images,
    )
    from effivmt.outputs import write_outputs
    from effivmt.stages import Workspace
    from effivmt.store import Store
    from effivmt.transfer import run_clip
    from flows import console

    _check_stages(force)
    # A wrong folder is told before an engine starts, and a download shows its own progress.
    _ = Workspace(Store(store), settings).folder
    if engine == "prefect":
        from tasks.server import reach_server

        with console.waiting("starting Prefect", quiet=quiet):
            reach_server()
    with console.watching(quiet=quiet) as watch:
        if engine == "prefect":
            from flows.transfer import transfer as flow

            result, outputs = flow(clip, settings, store, out, tuple(force), watch)
        else:
            work = Workspace(Store(store), settings, watch.advanced, frozenset(force))
            result = run_clip(work, clip, watch=watch)
            outputs = write_outputs(work, result, out)
    if quiet:
        print(outputs.folder)
    else:
        console.print_transfer(result, outputs)


@app.command()
def run(
    catalog: Annotated[Path, typer.Argument(metavar="[CATALOG]", help="CSV, JSONL or Parquet.")] = CATALOG,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Receives a folder for each clip, and the tables.")] = Path(
        "out"
    ),
    only: Annotated[list[str], typer.Option(metavar="CLIP", help="Runs this clip alone; repeatable.")] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Shows what would be done, and why.")] = False,
    force: Annotated[list[str], typer.Option(metavar="STAGE", help="Runs a stage again; repeatable.")] = [],  # noqa: B006
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Runs only what failed in the last run.")
    ] = False,
    engine: Annotated[
        Literal["prefect", "local"], typer.Option(help="prefect: shown by Prefect, recorded in MLflow; local: neither.")
    ] = "prefect",
    runner: Runner = "threads",
    address: Address = "",
    resource: Resource = "",
    params: ParamsFile = PARAMS,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Transfers the motion of every clip of a catalog to its prompts."""
    settings = _load_params(params, overrides)
    _check_stages(force)
    if runner == "dask" and engine == "local":
        raise ParamsError("--runner dask and --engine local contradict one another; leave one out")
    from effivmt.catalog import load_catalog
    from effivmt.selection import select_clips
    from effivmt.stages import Workspace
    from effivmt.store import Store
    from flows import console
    from tasks.cluster import choose_cluster

    cluster = choose_cluster(runner, address, resource)
    chosen = select_clips(load_catalog(catalog), tuple(only), out if retry_failed else None)
    if not chosen.clips:
        print("nothing failed in the last run")
        return
    work = Workspace(Store(store), settings, force=frozenset(force))
    _ = work.folder  # a wrong folder is told before an engine starts
    if dry_run:
        console.print_plan(work, chosen)
        return
    with console.watching_catalog(len(chosen.clips), quiet=quiet) as watch:
        if engine == "prefect":
            from tasks.server import reach_server

            reach_server(of_its_own="--runner dask" if cluster else "")
            from flows.catalog import run_catalog

            record = run_catalog(chosen, settings, store, out, tuple(force), watch, cluster)
        else:
            from effivmt.batch import run_catalog

            record = run_catalog(work, chosen, out, watch)
    console.print_run(record, out, quiet=quiet)
    if record["failed"]:
        raise typer.Exit(1)


@app.command()
def serve(
    cron: Annotated[str, typer.Option(metavar="EXPRESSION", help="When to run, such as '0 2 * * *': at two at night.")],
    catalog: Annotated[Path, typer.Argument(metavar="[CATALOG]", help="CSV, JSONL or Parquet.")] = CATALOG,
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="Of the cron expression.")] = "UTC",
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the deployment; default: the catalog file's.")] = "",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Receives a folder for each clip, and the tables.")] = Path(
        "out"
    ),
    runner: Runner = "threads",
    address: Address = "",
    resource: Resource = "",
    params: ParamsFile = PARAMS,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Runs a catalog on a schedule until it is stopped; each run takes the rows that the catalog has by then.

    Needs a Prefect server, which keeps the schedule: `prefect server start`, and its address in PREFECT_API_URL.
    """
    settings = _load_params(params, overrides)
    from effivmt.catalog import load_catalog
    from effivmt.stages import Workspace
    from effivmt.store import Store
    from flows.serving import check_schedule
    from flows.serving import serve as serve_runs
    from tasks.cluster import choose_cluster
    from tasks.server import reach_server

    check_schedule(cron, timezone)
    choose_cluster(runner, address, resource)
    clips = load_catalog(catalog).clips
    _ = Workspace(Store(store), settings).folder
    reach_server(of_its_own="effivmt serve")
    files = {"catalog": catalog, "params": params, "store": store, "out": out}
    parameters = {option: str(path.resolve()) for option, path in files.items()}
    parameters |= {"overrides": overrides, "runner": runner, "address": address, "resource": resource}
    print(
        f"serving {catalog} ({len(clips)} clips) at {cron!r} {timezone}; stop with Ctrl-C", file=sys.stderr, flush=True
    )
    serve_runs(name or catalog.stem, cron, timezone, parameters)
    print("stopped; the schedule is paused until effivmt serve runs again", file=sys.stderr)


@app.command()
def stage(
    name: Annotated[str, typer.Argument(metavar="NAME", help="ingest, heads, spatial, temporal, render or evaluate.")],
    catalog: Annotated[Path, typer.Argument(metavar="[CATALOG]", help="CSV, JSONL or Parquet.")] = CATALOG,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Receives a folder for the stage.")] = Path("data/stages"),
    params: ParamsFile = PARAMS,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Takes every clip of a catalog through one stage, without an engine: what dvc.yaml calls.

    Earlier stages come from the store; what it lacks of them is computed.
    """
    settings = _load_params(params, overrides)
    from effivmt.catalog import load_catalog
    from effivmt.pipeline import run_stage_over
    from effivmt.stages import STAGES, Workspace
    from effivmt.store import Store
    from flows import console

    if name not in STAGES:
        raise ParamsError(f"NAME is {name!r}; expected one of {', '.join(STAGES)}")
    chosen = load_catalog(catalog)
    work = Workspace(Store(store), settings)
    _ = work.folder  # a wrong folder is told before the first clip
    with console.watching_catalog(len(chosen.clips), quiet=quiet) as watch:
        record = run_stage_over(work, chosen, name, out, watch)
    console.print_run(record, out / name, quiet=quiet)
    if record["failed"]:
        raise typer.Exit(1)


@app.command()
def render(
    adapter: Annotated[
        str, typer.Argument(metavar="ADAPTER", help="An adapter folder, models:/NAME@ALIAS or models:/NAME/VERSION.")
    ],
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What to render.")],
    out: Annotated[Path, typer.Option(metavar="FILE.mp4", help="The video to write.")],
    appearance: Annotated[float | None, typer.Option(metavar="X", help="Strength of the reference's looks.")] = None,
    motion: Annotated[float | None, typer.Option(metavar="X", help="Strength of the reference's motion.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the noise.")] = None,
    params: ParamsFile = PARAMS,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Renders a prompt with an adapter."""
    chosen = {
        "render.appearance_strength": appearance,
        "render.motion_strength": motion,
        "render.seeds": None if seed is None else [seed],
    }
    chosen = [f"{field}={value}" for field, value in chosen.items() if value is not None]
    settings = _load_params(params, [*overrides, *chosen, "render.baseline=false"])
    if len(settings.render.seeds) > 1:
        raise ParamsError(f"render.seeds is {settings.render.seeds}; one video has one seed: choose it with --seed")
    if out.suffix.lower() != ".mp4":
        raise ParamsError(f"--out {out} is no .mp4 file name; give one")
    from effivmt import stages
    from effivmt.placing import copy_file
    from effivmt.store import Store
    from effivmt.transfer import run_stage
    from flows import console
    from tasks.pulling import PREFIX, pull_to_cache

    folder = pull_to_cache(adapter, store / "pulled") if adapter.startswith(PREFIX) else Path(adapter)
    with console.watching(quiet=quiet) as watch:
        work = stages.Workspace(Store(store), settings, watch.advanced)
        (rendered,), _ = run_stage(stages.render, work, [prompt], folder, watch=watch)
    out.parent.mkdir(parents=True, exist_ok=True)
    copy_file(work.store, rendered.artifact, "video.mp4", out)
    print(out)


@app.command()
def pull(
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="models:/NAME@ALIAS or models:/NAME/VERSION.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The adapter's folder, which must not exist yet.")],
) -> None:
    """Brings an adapter from MLflow's registry here and verifies every byte."""
    from tasks.pulling import pull as fetch

    print(fetch(adapter, out))


@app.command()
def sync(
    out: Annotated[Path, typer.Argument(metavar="[OUT]", help="A folder that runs have written.")] = Path("out"),
) -> None:
    """Records in MLflow what runs could not, or did not, record there."""
    from tasks.location import public_uri, tracking_uri
    from tasks.recording import sync as record_pending

    uri, recorded, failed = tracking_uri(), 0, 0
    for folder, reason in record_pending(uri, out):
        recorded, failed = recorded + (not reason), failed + bool(reason)
        print(f"{folder}: {reason or 'recorded'}")
    print(f"{recorded} recorded, {failed} failed at {public_uri(uri)}" if recorded + failed else "nothing is pending")
    if failed:
        raise typer.Exit(1)


@app.command()
def evaluate(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The video whose motion was to be taken.")],
    generated: Annotated[Path, typer.Argument(metavar="GENERATED", help="The video that was to take it.")],
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What the generated video was to show.")],
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object instead of a table.")] = False,
    params: ParamsFile = PARAMS,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Prints the metrics of any two video files."""
    settings = _load_params(params, overrides)
    from effivmt.evaluation.similarity import ClipScorer
    from effivmt.steps import measure
    from effivmt.video import read_frames
    from flows import console

    videos = [read_frames(path)[0] for path in (reference, generated)]
    metrics = measure(*videos, prompt, ClipScorer(Path(settings.evaluate.scorer)))
    if as_json:
        print(json.dumps(metrics))
    else:
        from rich.console import Console

        Console().print(console.metrics_table(f"{generated}: {prompt}", {"value": metrics}))


@app.command()
def doctor(params: ParamsFile = PARAMS, store: StoreFolder = STORE, overrides: Overrides = []) -> None:  # noqa: B006
    """Checks the installation and says what to mend."""
    from rich.console import Console
    from rich.text import Text

    from flows.doctor import examine

    console, faults = Console(highlight=False), 0
    for check in examine(params, tuple(overrides), store):
        faults += not check.ok
        mark = Text("OK   ", "green") if check.ok else Text("FAULT", "red")
        console.print(Text.assemble(mark, f" {check.name}: {check.text}"), soft_wrap=True)
    if faults:
        raise typer.Exit(1)


@app.command()
def pretrain(
    step: Annotated[
        str, typer.Argument(metavar="STEP", help="autoencoder, latents, transformer, scorer, assemble or judge.")
    ],
    work: Annotated[Path, typer.Option(metavar="DIR", help="Keeps the state between steps.")] = Path(
        ".effivmt/pretrain"
    ),
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder that assemble writes and judge reads.")] = Path(
        "out/wan-tiny"
    ),
    samples: Annotated[int, typer.Option(metavar="N", min=4, help="Clips that judge draws.")] = 64,
    params: ParamsFile = PARAMS,
) -> None:
    """Trains the embedded models, one step at a time; a step that was stopped goes on."""
    from flows.pretrain import run_judge, run_step

    if step == "judge":
        run_judge(out, samples, _load_params(params, []).render, work / "judge.png")
    else:
        run_step(step, work, out)


def _check_stages(names: list[str]) -> None:
    from effivmt.stages import STAGES

    if unknown := [stage for stage in names if stage not in STAGES]:
        raise ParamsError(f"--force {unknown[0]}: there is no such stage; expected one of {', '.join(STAGES)}")


def _load_params(path: Path, overrides: list[str]):
    from effivmt.config import load_params

    return load_params(path, tuple(overrides))


def _clip(**fields: object) -> "Clip":
    """The clip of the command line; ParamsError names the option that is wrong."""
    from pydantic import ValidationError

    from effivmt.catalog import Clip

    options = {"clip": "--name", "prompts": "--prompt", "video": "VIDEO"}
    try:
        return Clip(**fields)
    except ValidationError as error:
        fault = error.errors()[0]
        field = str(fault["loc"][0])
        option = options.get(field, f"--{field.replace('_', '-')}")
        raise ParamsError(f"{option} is {fault['input']!r:.60}: {fault['msg']}") from error
