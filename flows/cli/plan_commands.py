"""The command `plan`: what a run will take on this machine, before anything starts."""

import typer

from effivmt_flows.cli.options import Overrides, ParamsSource, load_params


def plan(params: ParamsSource = None, overrides: Overrides = []) -> None:  # noqa: B006
    """Shows memory, disk and time of every stage of a clip with one prompt, what will not fit, and what would help.

    The figures are counted from the backbone's configs, which alone are fetched of a hub id.
    """
    from effivmt.planning.report import plan_run
    from effivmt_flows.cli.plan_console import print_run_plan

    report = plan_run(load_params(params, overrides))
    print_run_plan(report)
    if report.faults:
        raise typer.Exit(1)
