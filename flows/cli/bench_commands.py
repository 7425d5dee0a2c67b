"""The command `bench`: methods, clips and prompts into one comparison."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effivmt.errors import ParamsError
from effivmt_flows.cli.options import STORE, Overrides, ParamsSource, Quiet, StoreFolder

if TYPE_CHECKING:
    from effivmt.catalog import Clip


def bench(
    suite: Annotated[str, typer.Option(metavar="NAME", help="mini, quick, extra, or a catalog file.")] = "mini",
    method: Annotated[
        list[str], typer.Option(metavar="NAME|FILE.py", help="A method, all, or a file with one; repeatable.")
    ] = [],  # noqa: B006
    ablation: Annotated[
        list[str], typer.Option(metavar="NAME", help="An ablation, control or sweep, a kind, or all; repeatable.")
    ] = [],  # noqa: B006
    variant: Annotated[
        list[str],
        typer.Option(metavar="NAME:SECTION.KEY=VALUE", help="Adds EffiVMT with this parameter by a name; repeatable."),
    ] = [],  # noqa: B006
    only: Annotated[list[str], typer.Option(metavar="CLIP", help="Only this clip; repeatable.")] = [],  # noqa: B006
    clips: Annotated[int | None, typer.Option(metavar="N", min=1, help="Clips at most, of each class in turn.")] = None,
    prompts: Annotated[int | None, typer.Option(metavar="N", min=1, help="Prompts at most of each clip.")] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Parallel processes.")] = 1,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Receives tables, picture, page and videos.")] = Path(
        "out/bench"
    ),
    peers: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Peers' params; default: peers.yaml beside the catalog.")
    ] = None,
    finished: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Keeps a row file of each method and clip here; what it has is not run again."
        ),
    ] = None,
    search: Annotated[
        bool, typer.Option("--search", help="Tries each method's candidates instead; writes the best to --peers.")
    ] = False,
    names: Annotated[bool, typer.Option("--list", help="Prints the names there are.")] = False,
    params: ParamsSource = None,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Compares methods on the same clips, with the same backbone, in one run; a stopped run resumes."""
    from effivmt.benchmark.methods import METHODS, OURS, choose
    from effivmt.benchmark.suites import suite_catalog, suite_name

    if names:
        for name, it in METHODS.items():
            changed = f" ({', '.join(it.overrides)})" if it.overrides else ""
            print(f"{it.kind:<9} {name:<20} {it.title}{changed}")
        return
    chosen, catalog = choose(method, ablation, variant), suite_catalog(suite)
    from effivmt.benchmark import runner
    from effivmt.benchmark.delivery import write_comparison
    from effivmt.benchmark.finished import FinishedJobs
    from effivmt.benchmark.peers import FILE
    from effivmt.benchmark.results import RunInfo
    from effivmt.benchmark.settings import settings_of
    from effivmt.catalog import load_catalog
    from effivmt.pipeline.healing import heal
    from effivmt.pipeline.stages import check_images, check_texts
    from effivmt.pipeline.workspace import open_workspace
    from effivmt.versions import __version__, git_commit
    from effivmt_flows.cli import bench_console
    from effivmt_flows.cli.progress import damage_notices, say_scorer_fault
    from effivmt_flows.cli.tables import print_faults
    from effivmt_tasks.stores import open_store

    loaded = load_catalog(catalog)
    print_faults(loaded)
    picked = runner.pick(loaded.only(tuple(only)), clips, prompts)
    beside = catalog.parent / FILE
    if search:
        _search(
            picked,
            peers or beside,
            params=params,
            store=store,
            overrides=overrides,
            workers=workers,
            quiet=quiet,
        )
        return
    jobs = runner.plan(
        chosen,
        picked,
        params=params,
        peers=peers or (beside if beside.is_file() else None),
        overrides=overrides,
    )
    opened = open_store(store)
    work = open_workspace(jobs[0].params, opened)  # a wrong backbone ends the run before the first job
    folder = work.folder
    for clip in picked:
        check_texts(work, (clip.caption, *clip.prompts))
        check_images(work, clip.prompts, clip.images)
    say_scorer_fault(work.scorer.fault, quiet=quiet)
    settings = settings_of(next(job.params for job in jobs if job.method.name == OURS))
    info = RunInfo(suite_name(suite), folder.id, folder.digest, __version__, git_commit(), workers, settings)
    for trial in heal(damage_notices(quiet=quiet)):
        with trial:
            with bench_console.job_progress(len(jobs), quiet=quiet) as on_job_end:
                kept = None if finished is None else FinishedJobs(finished)
                done = runner.run(opened, jobs, workers, on_job_end, finished=kept)
            summary = write_comparison(out, info, chosen, results=done)
    bench_console.print_summary(summary, out, quiet=quiet)
    if summary["failures"]:
        raise typer.Exit(1)


def _search(
    clips: list["Clip"],
    peers: Path,
    *,
    params: str | None,
    store: Path,
    overrides: list[str],
    workers: int,
    quiet: bool,
) -> None:
    from effivmt.benchmark import runner
    from effivmt.benchmark.search import choose, plan, write_chosen
    from effivmt.pipeline.workspace import open_workspace
    from effivmt_flows.cli import bench_console
    from effivmt_tasks.stores import open_store

    jobs = plan(clips, params, overrides)
    opened = open_store(store)
    work = open_workspace(jobs[0].params, opened)
    folder = work.folder
    if work.scorer.fault:
        raise ParamsError(f"--search compares by text similarity, but {work.scorer.fault}")
    with bench_console.job_progress(len(jobs), quiet=quiet) as on_job_end:
        rows = choose(runner.run(opened, jobs, workers, on_job_end))
    names, prompts = ", ".join(clip.clip for clip in clips), sum(len(clip.prompts) for clip in clips)
    write_chosen(peers, rows, f"Chosen on {names} (prompts: {prompts}) with {folder.id} ({folder.digest[:12]}).")
    bench_console.print_search(rows, peers, quiet=quiet)
    if any(row["score"] is None for row in rows):
        raise typer.Exit(1)
