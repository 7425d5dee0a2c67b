"""The output of `plan`: a table of the stages, the choices for memory, and what will not fit."""

from rich.table import Table

from effivmt.planning.choosing import GIB, usable
from effivmt.planning.report import RunPlan
from effivmt_flows.cli.tables import results_console


def print_run_plan(report: RunPlan) -> None:
    """Prints a row for each stage, how it is made to fit, and a line for each fault."""
    console, plan = results_console(), report.plan
    table = Table(title="A clip with one prompt", title_justify="left")
    table.add_column("stage")
    for heading in (
        report.device,
        *(["on the host"] if report.beside_a_gpu else []),
        "disk",
        "TFLOP",
        "at the matmul rate",
        "",
    ):
        table.add_column(heading, justify="right")
    misfits = {misfit.stage for misfit in plan.misfits}
    for cost in plan.costs:
        table.add_row(
            cost.stage,
            _gib(cost.device_bytes),
            *([_gib(cost.host_bytes)] if report.beside_a_gpu else []),
            _gib(cost.disk_bytes),
            f"{cost.flops / 1e12:,.1f}",
            _duration(report.seconds(cost.flops)),
            "does not fit" if cost.stage in misfits else "fits",
        )
    console.print(table)
    console.print(
        f"memory   {report.asked}: {usable(plan.gigabytes) / GIB:.1f} of {plan.gigabytes} GiB for tensors; chosen: "
        f"{plan.choices.describe()}",
        soft_wrap=True,
    )
    console.print(f"disk     {_gib(report.disk_bytes)} a clip, beside its videos", soft_wrap=True)
    console.print(
        f"time     {_duration(report.seconds(sum(cost.flops for cost in plan.costs)))} at {report.rate / 1e12:.2f} "
        "TFLOP/s, measured here on square matrices: a floor, which real stages reach in part",
        soft_wrap=True,
    )
    for fault in report.faults:
        console.print(f"FAULT    {fault}", soft_wrap=True, markup=False)


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"


def _duration(seconds: float) -> str:
    """As "3.2 s", "12 min" or "5.1 h"."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
