"""Commands about one clip: transfer, render and evaluate."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effivmt.errors import ParamsError
from effivmt_flows.cli.options import (
    PARAMS,
    STORE,
    Engine,
    Force,
    Overrides,
    ParamsFile,
    Quiet,
    StoreFolder,
    check_stages,
    load_params,
)

if TYPE_CHECKING:
    from effivmt.catalog import Clip


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
    force: Force = [],  # noqa: B006
    engine: Engine = "prefect",
    params: ParamsFile = PARAMS,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Transfers the motion of one video to new prompts, end to end."""
    settings = load_params(params, overrides)
    clip = _clip(
        clip=name or re.sub(r"[^A-Za-z0-9_-]+", "-", video.stem).strip("-")[:100],
        video=video,
        caption=caption,
        prompts=tuple(prompt),
        start=start,
        end=end,
        appearance_images=appearance_images,
    )
    from effivmt.pipeline.outputs import write_outputs
    from effivmt.pipeline.transfer import run_clip
    from effivmt.pipeline.workspace import Workspace
    from effivmt.store.store import Store
    from effivmt_flows.cli import console

    check_stages(force)
    # A wrong folder is told before an engine starts, and a download shows its own progress.
    _ = Workspace(Store(store), settings).folder
    if engine == "prefect":
        from effivmt_tasks.server import reach_server

        with console.waiting("starting Prefect", quiet=quiet):
            reach_server()
    with console.watching(quiet=quiet) as watch:
        if engine == "prefect":
            from effivmt_flows.transfer import transfer as flow

            result, outputs = flow(clip, settings, store, out, tuple(force), watch)
        else:
            work = Workspace(Store(store), settings, watch.advanced, frozenset(force))
            result = run_clip(work, clip, watch=watch)
            outputs = write_outputs(work, result, out)
    if quiet:
        print(outputs.folder)
    else:
        console.print_transfer(result, outputs)


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
    settings = load_params(params, [*overrides, *chosen, "render.baseline=false"])
    if len(settings.render.seeds) > 1:
        raise ParamsError(f"render.seeds is {settings.render.seeds}; one video has one seed: choose it with --seed")
    if out.suffix.lower() != ".mp4":
        raise ParamsError(f"--out {out} is no .mp4 file name; give one")
    from effivmt.pipeline import stages
    from effivmt.pipeline.transfer import run_stage
    from effivmt.pipeline.workspace import Workspace
    from effivmt.store.files import export_file
    from effivmt.store.store import Store
    from effivmt_flows.cli import console
    from effivmt_tasks.tracking.pull import PREFIX, pull_to_cache

    folder = pull_to_cache(adapter, store / "pulled") if adapter.startswith(PREFIX) else Path(adapter)
    with console.watching(quiet=quiet) as watch:
        work = Workspace(Store(store), settings, watch.advanced)
        (rendered,), _ = run_stage(stages.render, work, [prompt], folder, watch=watch)
    out.parent.mkdir(parents=True, exist_ok=True)
    export_file(work.store, rendered.artifact, "video.mp4", out)
    print(out)


def evaluate(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The video whose motion was to be taken.")],
    generated: Annotated[Path, typer.Argument(metavar="GENERATED", help="The video that was to take it.")],
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What the generated video was to show.")],
    caption: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the reference shows; needed for the appearance leakage.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object instead of a table.")] = False,
    params: ParamsFile = PARAMS,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Prints the metrics of any two video files."""
    settings = load_params(params, overrides)
    from effivmt.evaluation.measure import load_metric_models, measure
    from effivmt.media.video import read_frames
    from effivmt.method.verbosity import silence_libraries
    from effivmt_flows.cli import console
    from effivmt_flows.cli.plain import results_console

    silence_libraries()
    videos = [read_frames(path)[0] for path in (reference, generated)]
    instruments = load_metric_models(Path(settings.evaluate.scorer), settings.evaluate.tracker)
    metrics = measure(*videos, prompt, instruments, caption=caption)
    if as_json:
        print(json.dumps(metrics))
    else:
        results_console().print(console.metrics_table(f"{generated}: {prompt}", {"value": metrics}))


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
