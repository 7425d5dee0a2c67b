"""The training of the embedded models, step by step, with progress and figures on stderr."""

from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from effivmt.errors import ParamsError
from effivmt.pretrain import recipe
from effivmt.quiet import quiet_libraries

STEPS = {
    "autoencoder": recipe.train_autoencoder,
    "latents": recipe.cache_latents,
    "transformer": recipe.train_transformer,
    "scorer": recipe.train_scorer,
}


def run_step(step: str, work: Path, out: Path) -> None:
    """Runs one step in the folder `work`; `assemble` writes the folder `out`. ParamsError for another name."""
    torch.set_flush_denormal(True)
    quiet_libraries()
    if step == "assemble":
        recipe.assemble(work, out)
        return
    if step not in STEPS:
        raise ParamsError(f"STEP is {step!r}; expected one of {', '.join([*STEPS, 'assemble'])}")
    work.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        bars = {}

        def report(name: str, done: int, total: int, figures: dict[str, float]) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=total, figures="")
            text = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
            progress.update(bars[name], completed=done, figures=text)

        STEPS[step](work, report)
