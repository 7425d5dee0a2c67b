"""The plan of a run on this machine: the counted table beside what the machine has."""

from dataclasses import dataclass

from effivmt.config import Params
from effivmt.method.backbone_folder import check_settings, find_configs
from effivmt.method.device import pick_device
from effivmt.method.memory_choices import MemoryChoices
from effivmt.planning.choosing import GIB, Plan, choose, make_plan, usable
from effivmt.planning.machine import gpu_gigabytes, host_bytes, matmul_rate
from effivmt.planning.memory import budget
from effivmt.planning.stages import StageCounter

PROCESS_BYTES = int(0.75 * GIB)
"""What the interpreter and its libraries take beside any tensor."""


@dataclass(frozen=True)
class RunPlan:
    """A plan, the device it is for, its matmul rate (FLOPs a second) and, one line each, what will not fit and why.

    beside_a_gpu: whether the plan's memory is a GPU's, of this machine or of the size that the params say.
    """

    plan: Plan
    device: str
    beside_a_gpu: bool
    asked: str
    rate: float
    faults: tuple[str, ...]

    @property
    def disk_bytes(self) -> int:
        """What a clip takes on the disk at most, its videos apart."""
        return sum(cost.disk_bytes for cost in self.plan.costs)

    def seconds(self, flops: float) -> float:
        """Time that these FLOPs take at the measured rate, which real stages reach in part."""
        return flops / self.rate


def plan_run(params: Params) -> RunPlan:
    """What a run with these params takes on this machine; errors as of `find_configs` and `check_settings`."""
    found = find_configs(params.backbone)
    check_settings(found, params)
    counter = StageCounter(found.path, params, found.shape.experts)
    device, gigabytes = pick_device(params.backbone.device, "backbone.device"), budget(params)
    host, beside_a_gpu = host_bytes(), gigabytes is not None
    if gigabytes is None:
        gigabytes, choices = host // GIB, MemoryChoices()
    else:
        choices = choose(counter, gigabytes)
    plan = make_plan(counter, choices, gigabytes)
    rate = matmul_rate(device.type, params.backbone.dtype)
    faults = _misfits(plan) + (_beyond_the_machine(plan, params, host) if beside_a_gpu else [])
    return RunPlan(plan, str(device), beside_a_gpu, str(params.backbone.memory), rate, tuple(faults))


def _misfits(plan: Plan) -> list[str]:
    return [
        f"{it.stage} needs {it.needed / GIB:.1f} GiB, and {plan.gigabytes} GB hold {usable(plan.gigabytes) / GIB:.1f}; "
        + (f"it fits with --set {it.remedy}" if it.remedy else "it fits only a larger GPU or smaller frames (ingest)")
        for it in plan.misfits
    ]


def _beyond_the_machine(plan: Plan, params: Params, host: int) -> list[str]:
    """Faults of a budget that is not this machine's, and of what the host holds beside a GPU."""
    faults, own = [], gpu_gigabytes(params.backbone.device)
    if own is not None and own < plan.gigabytes:
        faults.append(
            f"backbone.memory is {plan.gigabytes} but the GPU has {own} GiB; set it to auto, or to a level below"
        )
    most = max(plan.costs, key=lambda cost: cost.host_bytes)
    if most.host_bytes + PROCESS_BYTES > host:
        faults.append(
            f"{most.stage} holds {most.host_bytes / GIB:.1f} GiB on the host, which has {host / GIB:.1f} GiB; "
            "use a machine with more memory"
        )
    return faults
