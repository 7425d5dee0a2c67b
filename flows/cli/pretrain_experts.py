"""The making of a tiny pair of experts, with progress on stderr."""

from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from effivmt.embedded import WAN_TINY, find_embedded
from effivmt.method.device import pick_device
from effivmt.method.verbosity import silence_libraries
from effivmt.pretrain.expert_pair import tune_apart
from effivmt_flows.cli.terminal import open_console, say


def run_experts(start: Path | None, out: Path, *, device: str) -> None:
    """Writes to `out` the backbone folder `start`, or wan-tiny, with two transformers that are tuned apart."""
    chosen_device = pick_device(device, "--device")
    silence_libraries()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=open_console(stderr=True)) as progress:
        bars: dict[str, TaskID] = {}

        def report(expert: str, done: int, total: int) -> None:
            if expert not in bars:
                bars[expert] = progress.add_task(expert.replace("_", " "), total=total)
            progress.update(bars[expert], completed=done)

        tune_apart(start or find_embedded(WAN_TINY), out, device=chosen_device, report=report)
    say(out)
