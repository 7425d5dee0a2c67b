"""Commands about one clip: demo, transfer, render and evaluate."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from effivmt.errors import ParamsError
from effivmt_flows.cli.merge_commands import adapter_folder, strengths_of
from effivmt_flows.cli.options import (
    OUT,
    STORE,
    Engine,
    Force,
    Images,
    Method,
    Overrides,
    ParamsSource,
    Preview,
    Quiet,
    StoreFolder,
    load_method,
    load_params,
)

if TYPE_CHECKING:
    from effivmt.catalog import Clip


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Receives a folder with all results.")] = Path("out/demo"),
    engine: Engine = "prefect",
    store: StoreFolder = STORE,
    quiet: Quiet = False,
) -> None:
    """Transfers the motion of the sample clip to two prompts with the embedded models; needs no other file."""
    from effivmt.embedded import data_folder

    transfer(
        video=data_folder() / "samples" / "zigzag.mp4",
        caption="a red square on a navy background",
        prompt=["a yellow star on a black background", "a purple square on a black background"],
        out=out,
        engine=engine,
        params="tiny",
        store=store,
        quiet=quiet,
    )


def transfer(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="The reference video, whose motion is taken.")],
    prompt: Annotated[list[str], typer.Option(metavar="TEXT", help="What to render with its motion; repeatable.")] = [],  # noqa: B006
    image: Images = [],  # noqa: B006
    caption: Annotated[str, typer.Option(metavar="TEXT", help="What the reference video shows; may be left out.")] = "",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Receives a folder with all results.")] = OUT,
    name: Annotated[str, typer.Option(metavar="ID", help="The clip's id; default: from the file's name.")] = "",
    start: Annotated[float, typer.Option(metavar="SECONDS", help="Where the clip begins in the video.")] = 0.0,
    end: Annotated[float | None, typer.Option(metavar="SECONDS", help="Where the clip ends in the video.")] = None,
    appearance_images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Images to learn the looks from, instead of the clip's frames.")
    ] = None,
    motion_of: Annotated[
        Literal["all", "camera", "object"],
        typer.Option(help="Takes the motion of the camera alone, or of what moves against the ground."),
    ] = "all",
    region: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="Takes the motion of what is there on the first frame: pixels of the video, or shares of 1.",
        ),
    ] = None,
    method: Method = "effivmt",
    preview: Preview = False,
    force: Force = [],  # noqa: B006
    engine: Engine = "prefect",
    params: ParamsSource = None,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Transfers the motion of one video to new prompts, or to images of yours, end to end."""
    from effivmt.catalog import clip_id

    if not prompt and not image:
        raise ParamsError("there is no --prompt; say what to render, or give an image with --image")
    if image and preview:
        raise ParamsError("--preview shows prompts, but the videos begin with --image; leave --preview out")
    settings, by_method = load_method(method, params, overrides, preview=preview, force=force)
    clip = _clip(
        clip=name or clip_id(video.stem),
        video=video,
        caption=caption,
        images=tuple(image),
        prompts=tuple(prompt),
        start=start,
        end=end,
        appearance_images=appearance_images,
        motion_of=motion_of,
        region=region,
    )
    from effivmt.benchmark.method_transfer import ByMethod
    from effivmt.pipeline.api import transfer as transfer_clip
    from effivmt.pipeline.hits import find_transfer
    from effivmt.pipeline.outputs import check_writable, refuse_other_video
    from effivmt.pipeline.stages import check_clip_images, check_texts
    from effivmt.pipeline.stages.ingestion import check_video, ingest_key
    from effivmt.pipeline.workspace import open_workspace
    from effivmt_flows.cli.progress import damage_notices, say_memory, say_scorer_fault, stage_progress, waiting
    from effivmt_flows.cli.tables import print_transfer
    from effivmt_flows.cli.terminal import say
    from effivmt_tasks.stores import open_store

    if isinstance(by_method, ByMethod):
        by_method.check(clip)
    # Here, so that a wrong video or backbone ends the command before an engine starts; a download shows its progress.
    work = open_workspace(settings, open_store(store), callback=damage_notices(quiet=quiet), force=force)
    check_texts(work, (clip.caption, *clip.prompts))
    check_clip_images(work, clip)
    check_writable(out / clip.clip)
    key = ingest_key(work, clip)
    if not name:
        refuse_other_video(out / clip.clip, key.inputs["clip"])
    if work.store.find(key) is None:
        check_video(clip)
    say_scorer_fault(work.scorer.fault, quiet=quiet)
    say_memory(work.memory, quiet=quiet)
    if engine == "prefect" and (found := find_transfer(work, clip, out, method=by_method)):
        from effivmt_flows.recording import record_clip

        result, outputs = found
        record_clip(outputs.folder)
        with stage_progress(quiet=quiet) as callback:
            for it in result.runs:
                callback.on_stage_start(it.stage)
                callback.on_stage_end(it)
    elif engine == "prefect":
        from effivmt_flows.cli.preloading import import_libraries
        from effivmt_tasks.server import reach_server

        with waiting("starting Prefect", quiet=quiet):
            reach_server(meanwhile=import_libraries)
        from effivmt_flows.transfer import transfer as flow

        with stage_progress(quiet=quiet) as callback:
            result, outputs = flow(clip, settings, store, out, force=tuple(force), callback=callback, method=by_method)
    else:
        with stage_progress(quiet=quiet) as callback:
            result, outputs = transfer_clip(replace(work, callback=callback), clip, out, method=by_method)
    if quiet:
        say(outputs.folder)
    else:
        print_transfer(result, outputs)


def render(
    adapters: Annotated[
        list[str],
        typer.Argument(
            metavar="ADAPTER...", help="A folder, models:/NAME@ALIAS or models:/NAME/VERSION; several together."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.mp4", help="The video to write.")],
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What to render; may be left out with an image.")] = "",
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="The image that the video begins with.")] = None,
    appearance: Annotated[
        list[float], typer.Option(metavar="X", help="Strength of the reference's looks, 0 to 4; one for each adapter.")
    ] = [],  # noqa: B006
    motion: Annotated[
        list[float], typer.Option(metavar="X", help="Strength of the reference's motion, 0 to 4; one for each adapter.")
    ] = [],  # noqa: B006
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the noise.")] = None,
    params: ParamsSource = None,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Renders a prompt, or an image that moves, with an adapter, or with several together."""
    chosen = [] if seed is None else [f"render.seeds=[{seed}]"]
    settings = load_params(params, [*overrides, *chosen, "render.baseline=false"])
    own = settings.render
    strengths = strengths_of(len(adapters), appearance, motion, default=(own.appearance_strength, own.motion_strength))
    if len(own.seeds) > 1:
        raise ParamsError(f"render.seeds is {own.seeds}; one video has one seed: choose it with --seed")
    if out.suffix.lower() != ".mp4":
        raise ParamsError(f"--out {out} is no .mp4 file name; give one")
    if not prompt and image is None:
        raise ParamsError("there is no --prompt; say what to render, or give an image with --image")
    images = [] if image is None else [image]
    if images and any(appearance):
        raise ParamsError(
            "--appearance is for a prompt alone; with --image the looks come from the image: leave it out"
        )
    from effivmt.pipeline import stages
    from effivmt.pipeline.healing import heal
    from effivmt.pipeline.runner import StageRunner
    from effivmt.pipeline.workspace import open_workspace
    from effivmt.store.files import export_file
    from effivmt_flows.cli.progress import stage_progress
    from effivmt_flows.cli.terminal import say
    from effivmt_tasks.stores import open_store

    folders = [adapter_folder(adapter, store) for adapter in adapters]
    with stage_progress(quiet=quiet) as callback:
        work, runner = open_workspace(settings, open_store(store), callback=callback), StageRunner(callback)
        stages.check_texts(work, [prompt])
        stages.check_images(work, [prompt], images)
        for trial in heal(callback):
            with trial:
                how = stages.arrange(work, folders, strengths)
                (video,) = runner.run(
                    stages.render, how.work, [prompt], how.adapter, images=images, regional=how.regional
                )
                export_file(video.artifact, "video.mp4", out)
    say(out)


def evaluate(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The video whose motion was to be taken.")],
    generated: Annotated[Path, typer.Argument(metavar="GENERATED", help="The video that was to take it.")],
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What the generated video was to show.")],
    caption: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the reference shows; needed for the appearance leakage.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Prints one JSON object instead of a table.")] = False,
    params: ParamsSource = None,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Prints the metrics of any two video files."""
    settings = load_params(params, overrides)
    from effivmt.pipeline.api import evaluate_videos
    from effivmt_flows.cli.tables import metrics_table, results_console

    metrics = evaluate_videos(reference, generated, prompt, caption=caption, params=settings.evaluate)
    if as_json:
        print(json.dumps(metrics))
    else:
        results_console().print(metrics_table(f"{generated}: {prompt}", {"value": metrics}))


def _clip(**fields: Any) -> "Clip":
    """The clip of the command line; ParamsError names the option that is wrong."""
    from pydantic import ValidationError

    from effivmt.catalog import Clip

    options = {"clip": "--name", "prompts": "--prompt", "images": "--image", "video": "VIDEO"}
    try:
        return Clip(**fields)
    except ValidationError as error:
        fault = error.errors()[0]
        if not fault["loc"]:  # two options that do not go together
            raise ParamsError(fault["msg"].removeprefix("Value error, ")) from error
        field = str(fault["loc"][0])
        option = options.get(field, f"--{field.replace('_', '-')}")
        given = fields["region"] if field == "region" else fault["input"]  # of a region, not one of its numbers
        raise ParamsError(f"{option} is {given!r:.60}: {fault['msg']}") from error
