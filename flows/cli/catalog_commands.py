"""Commands about a catalog: run, serve and stage."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effivmt.errors import CatalogError, ParamsError
from effivmt_flows.cli.options import (
    CATALOG,
    OUT,
    STORE,
    Address,
    Engine,
    Force,
    Method,
    OutFolder,
    Overrides,
    ParamsSource,
    Preview,
    Quiet,
    Resource,
    Runner,
    StoreFolder,
    load_method,
    load_params,
)

if TYPE_CHECKING:
    from effivmt.catalog import Catalog
    from effivmt.pipeline.outcomes import RunSummary
    from effivmt.pipeline.transfer import TransferMethod
    from effivmt.pipeline.workspace import Workspace
    from effivmt_tasks.cluster import Cluster


def new(
    catalog: Annotated[Path, typer.Argument(metavar="CATALOG", help="The .csv or .jsonl file to write.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of the videos, beside or below it.")],
    prompt: Annotated[
        list[str], typer.Option(metavar="TEXT", help="What to render with every video's motion; repeatable.")
    ] = [],  # noqa: B006
) -> None:
    """Writes a catalog from a folder of videos; captions are left empty, and so are prompts where none are given."""
    from effivmt.new_catalog import write_new_catalog
    from effivmt_flows.cli.terminal import say

    count = write_new_catalog(catalog, folder, prompt)
    missing = "" if prompt else "fill in the column prompts, then: "
    say(f"{catalog}: {count} video{'s' * (count > 1)}; {missing}effivmt run {catalog}")


def run(
    catalog: Annotated[Path, typer.Argument(metavar="[CATALOG]", help="CSV, JSONL or Parquet.")] = CATALOG,
    out: OutFolder = OUT,
    only: Annotated[list[str], typer.Option(metavar="CLIP", help="Runs this clip alone; repeatable.")] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Shows what would be done, and why.")] = False,
    method: Method = "effivmt",
    preview: Preview = False,
    force: Force = [],  # noqa: B006
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Runs only what failed in the last run.")
    ] = False,
    delete_removed: Annotated[
        bool, typer.Option("--delete-removed", help="Deletes the results of clips that have left the catalog.")
    ] = False,
    engine: Engine = "prefect",
    runner: Runner = "threads",
    address: Address = "",
    resource: Resource = "",
    params: ParamsSource = None,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Transfers the motion of every clip of a catalog to its prompts."""
    settings, by_method = load_method(method, params, overrides, preview=preview, force=force, dry_run=dry_run)
    if runner == "dask" and engine == "local":
        raise ParamsError("--runner dask and --engine local contradict one another; leave one out")
    from effivmt.catalog import read_catalog
    from effivmt.pipeline.outputs import check_writable
    from effivmt.pipeline.selection import select_clips, set_long_texts_aside
    from effivmt.pipeline.workspace import open_workspace
    from effivmt_flows.cli.progress import clip_progress, damage_notices, say_memory, say_scorer_fault
    from effivmt_flows.cli.tables import print_faults, print_plan, print_run
    from effivmt_tasks.cluster import choose_cluster
    from effivmt_tasks.stores import open_store

    cluster = choose_cluster(runner, address, resource)
    whole = read_catalog(catalog)
    if delete_removed:
        _delete_removed(whole, out, dry_run=dry_run)
    chosen = select_clips(whole, tuple(only), out if retry_failed else None)
    if not chosen.clips:
        print("nothing failed in the last run")
        return
    if not dry_run:
        check_writable(out)
    work = open_workspace(
        settings,
        open_store(store),
        callback=damage_notices(quiet=quiet),
        force=force,
        weights=not dry_run,
        here=cluster is None,
    )
    chosen = set_long_texts_aside(work, chosen)
    say_scorer_fault(work.scorer.fault, quiet=quiet)
    say_memory(work.memory, quiet=quiet)
    print_faults(chosen)
    if dry_run:
        print_plan(work, chosen)
        raise typer.Exit(1 if chosen.faults else 0)
    with clip_progress(len(chosen.clips), quiet=quiet) as callback:
        work = replace(work, callback=callback)
        if engine == "local":
            from effivmt.pipeline.catalog_run import run_catalog

            summary = run_catalog(work, chosen, out, method=by_method)
        else:
            summary = _run_with_prefect(work, chosen, out, cluster, method=by_method)
    print_run(summary, chosen, out, quiet=quiet)
    if summary.failed:
        raise typer.Exit(1)


def _run_with_prefect(
    work: "Workspace", chosen: "Catalog", out: Path, cluster: "Cluster | None", *, method: "TransferMethod"
) -> "RunSummary":
    """Runs a catalog with Prefect; without it where all are hits and PREFECT_API_URL names no server to hear of it."""
    from effivmt.pipeline.hits import find_hits

    if cluster is not None:  # a wrong use ends here
        from effivmt_tasks.server import reach_server

        reach_server(needed_by="--runner dask")
    hits = find_hits(work, chosen, out, method=method)
    if len(hits) == len(chosen.clips) and not os.environ.get("PREFECT_API_URL"):
        from effivmt_flows.recording import record_hits

        return record_hits(chosen, hits, out)
    from effivmt_flows.cli.preloading import import_libraries
    from effivmt_tasks.server import reach_server

    reach_server(meanwhile=import_libraries)
    from effivmt_flows.catalog import run_catalog_flow

    force = tuple(sorted(work.force))
    store, callback = work.store.root, work.callback
    return run_catalog_flow(
        chosen,
        work.params,
        store,
        out,
        hits=hits,
        force=force,
        callback=callback,
        cluster=cluster,
        method=method,
    )


def serve(
    cron: Annotated[str, typer.Option(metavar="EXPRESSION", help="When to run, such as '0 2 * * *': at two at night.")],
    catalog: Annotated[Path, typer.Argument(metavar="[CATALOG]", help="CSV, JSONL or Parquet.")] = CATALOG,
    timezone: Annotated[str, typer.Option(metavar="ZONE", help="Of the cron expression.")] = "UTC",
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the deployment; default: the catalog file's.")] = "",
    out: OutFolder = OUT,
    runner: Runner = "threads",
    address: Address = "",
    resource: Resource = "",
    params: ParamsSource = None,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Runs a catalog on a schedule until it is stopped; each run takes the rows that the catalog has by then.

    Needs a Prefect server, which keeps the schedule: `prefect server start`, and its address in PREFECT_API_URL.
    """
    settings = load_params(params, overrides)
    from effivmt.catalog import list_faults, load_catalog
    from effivmt.pipeline.selection import set_long_texts_aside
    from effivmt.pipeline.workspace import open_workspace
    from effivmt_flows.cli.tables import print_faults
    from effivmt_flows.cli.terminal import say
    from effivmt_flows.serving import check_schedule
    from effivmt_flows.serving import serve as serve_runs
    from effivmt_tasks.cluster import choose_cluster
    from effivmt_tasks.server import reach_server
    from effivmt_tasks.stores import open_store

    check_schedule(cron, timezone)
    cluster = choose_cluster(runner, address, resource)
    work = open_workspace(settings, open_store(store), here=cluster is None)
    chosen = set_long_texts_aside(work, load_catalog(catalog))
    if chosen.faults:
        raise CatalogError(list_faults(chosen))
    print_faults(chosen)
    reach_server(needed_by="effivmt serve")
    files = {"catalog": catalog, "store": store, "out": out}
    parameters: dict[str, object] = {option: str(path.resolve()) for option, path in files.items()}
    parameters |= {"params": _absolute(params), "overrides": overrides}
    parameters |= {"runner": runner, "address": address, "resource": resource}
    say(f"serving {catalog} ({len(chosen.clips)} clips) at {cron!r} {timezone}; stop with Ctrl-C", sys.stderr)
    serve_runs(name or catalog.stem, cron, timezone, parameters)
    print("stopped; the schedule is paused until effivmt serve runs again", file=sys.stderr)


def stage(
    name: Annotated[str, typer.Argument(metavar="NAME", help="ingest, heads, spatial, temporal, render or evaluate.")],
    catalog: Annotated[Path, typer.Argument(metavar="[CATALOG]", help="CSV, JSONL or Parquet.")] = CATALOG,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Receives a folder for the stage.")] = Path("data/stages"),
    params: ParamsSource = None,
    store: StoreFolder = STORE,
    overrides: Overrides = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Takes every clip of a catalog through one stage, without an engine: what dvc.yaml calls.

    Earlier stages come from the store; what it lacks of them is computed.
    """
    settings = load_params(params, overrides)
    from effivmt.catalog import read_catalog
    from effivmt.pipeline.selection import set_long_texts_aside
    from effivmt.pipeline.stage_run import run_stage_over
    from effivmt.pipeline.stages import STAGES
    from effivmt.pipeline.workspace import open_workspace
    from effivmt_flows.cli.progress import clip_progress, damage_notices, say_scorer_fault
    from effivmt_flows.cli.tables import print_faults, print_run
    from effivmt_tasks.stores import open_store

    if name not in STAGES:
        raise ParamsError(f"NAME is {name!r}; expected one of {', '.join(STAGES)}")
    chosen = read_catalog(catalog)
    work = open_workspace(settings, open_store(store), callback=damage_notices(quiet=quiet))
    chosen = set_long_texts_aside(work, chosen)
    print_faults(chosen)
    if name == "evaluate":
        say_scorer_fault(work.scorer.fault, quiet=quiet)
    with clip_progress(len(chosen.clips), quiet=quiet) as callback:
        summary = run_stage_over(replace(work, callback=callback), chosen, name, out)
    print_run(summary, chosen, out / name, quiet=quiet)
    if summary.failed:
        raise typer.Exit(1)


def _delete_removed(catalog: "Catalog", out: Path, *, dry_run: bool) -> None:
    from effivmt.pipeline.removed_rows import delete_results, removed_rows
    from effivmt_flows.cli.terminal import say

    if catalog.faults:
        raise ParamsError(f"--delete-removed needs a catalog without faults, but {catalog.path}: {catalog.faults[0]}")
    gone = removed_rows(catalog, out)
    if not dry_run:
        delete_results(out, gone)
    for clip in gone:
        say(f"{'would delete' if dry_run else 'deleted'} {out / clip}: no longer in the catalog", sys.stderr)


def _absolute(params: str | None) -> str:
    """The params of `--params` for a process with another working folder: a file by its absolute path."""
    from effivmt.params_file import DEFAULT_FILE

    if params is None:
        return str(DEFAULT_FILE.resolve()) if DEFAULT_FILE.is_file() else "tiny"
    return str(Path(params).resolve()) if Path(params).is_file() else params
