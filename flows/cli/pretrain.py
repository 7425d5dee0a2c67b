"""The training of the embedded models, step by step, with progress and figures on stderr."""

from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from effivmt.config import Params
from effivmt.embedded import find_embedded
from effivmt.errors import ParamsError
from effivmt.media.figures import contact_sheet
from effivmt.media.video import write_image
from effivmt.method.device import pick_device
from effivmt.method.verbosity import silence_libraries
from effivmt.pretrain import recipe
from effivmt.pretrain.examinations.captions import (
    WORLD,
    Answer,
    Question,
    examine,
    questions,
    reconstruct,
    shares,
    spread,
    true_paths,
)
from effivmt.pretrain.examinations.scenes import SCENES, examine_scenes
from effivmt.pretrain.examinations.scorer import hard_questions, score_accuracy
from effivmt.pretrain.plans import plan_of
from effivmt.pretrain.scorer import load_scorer
from effivmt.world.scenes import KINDS
from effivmt_flows.cli.tables import results_console
from effivmt_flows.cli.terminal import open_console

QUESTIONS = 400
"""The number of questions that the scorer answers."""
STEPS = ("autoencoder", "latents", "transformer", "scorer", "assemble")
TRAINING = {
    "autoencoder": recipe.train_autoencoder,
    "transformer": recipe.train_transformer,
    "scorer": recipe.train_scorer,
}
"""The steps that train; they can go on from a folder of trained weights."""


def run_step(step: str, work: Path, out: Path, *, plan: str, device: str, start: Path | None = None) -> None:
    """Runs one step of a plan in the folder `work`; `assemble` writes the folder `out`. ParamsError for another name.

    `autoencoder` and `transformer` start from the weights of the backbone folder `start`, `scorer` from those of the
    scorer folder, if one is given.
    """
    chosen_plan, chosen_device = plan_of(plan), pick_device(device, "--device")
    torch.set_flush_denormal(True)
    silence_libraries()
    if step not in STEPS:
        known = [*STEPS, "judge", "transfer", "images", "parts", "experts"]
        raise ParamsError(f"STEP is {step!r}; expected one of {', '.join(known)}")
    if start is not None and step not in TRAINING:
        raise ParamsError(f"--start is for {', '.join(TRAINING)}; {step} does not take it")
    if step == "assemble":
        recipe.assemble(work, out, chosen_plan)
        return
    work.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=open_console(stderr=True)) as progress:
        bars: dict[str, TaskID] = {}

        def report(name: str, done: int, total: int, figures: dict[str, float]) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=total, figures="")
            text = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
            progress.update(bars[name], completed=done, figures=text)

        if step == "latents":
            recipe.measure_latents(work, report, chosen_plan, chosen_device)
        else:
            TRAINING[step](work, report, chosen_plan, chosen_device, start=start)


def run_judge(folder: Path, samples: int, params: Params, sheet: Path) -> None:
    """Examines the backbone in `folder` and the params' scorer, and prints a table.

    The backbone draws `samples` clips of held-out captions, half as many without a motion phrase and a third as many of
    each other kind of scene; its autoencoder reconstructs `samples` clips of each kind. All clips have the length that
    the params' `ingest` asks for. The first 16 clips are written to the contact sheet `sheet`.
    """
    silence_libraries()
    render, num_frames = params.render, params.ingest.num_frames
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bars:

        def bar(name: str, total: int) -> Callable[[int, int], None]:
            task = bars.add_task(name, total=total)
            return lambda done, _: bars.update(task, completed=done)

        def examine_captions(name: str, asked: list[Question]) -> list[Answer]:
            progress = bar(name, len(asked))
            return examine(folder, asked, params=render, num_frames=num_frames, progress=progress)

        named = examine_captions("captions", questions(samples, motion=True))
        free = examine_captions("no motion said", questions(max(2, samples // 2), motion=False))
        third = max(4, samples // 3)
        scenes = {
            kind: examine_scenes(folder, kind, third, params=render, num_frames=num_frames, progress=bar(kind, third))
            for kind in SCENES
        }
    title = f"{folder}: {samples} clips of {num_frames} frames, of captions held out of training"
    table = Table(title=title, title_justify="left")
    for heading in ("attribute", "right"):
        table.add_column(heading)
    for name, share in shares(named).items():
        table.add_row(name, f"{share:.3f}")
    spreads = spread([answer.verdict.path for answer in free]), spread(true_paths(400, num_frames=num_frames))
    table.add_row("path spread", f"{spreads[0]:.3f} (training data {spreads[1]:.3f})")
    for kind, seen in scenes.items():
        for name, share in seen.items():
            table.add_row(f"{kind}: {name}", f"{share:.3f} of {third} clips")
    for kind in KINDS:
        psnr, answers = reconstruct(folder, kind, samples, num_frames=num_frames)
        table.add_row(f"reconstruction, {kind}", f"{psnr:.1f} dB")
        for name, share in shares(answers).items() if answers else ():
            table.add_row(f"reconstruction, {name}", f"{share:.3f} of {len(answers)} plain objects")
    model, tokenizer = load_scorer(find_embedded(params.evaluate.scorer))
    accuracy = score_accuracy(model, tokenizer, hard_questions(QUESTIONS, seed=WORLD))
    table.add_row("scorer: right caption of 32", f"{accuracy:.3f} of {QUESTIONS} questions")
    console = results_console()
    console.print(table)
    sheet.parent.mkdir(parents=True, exist_ok=True)
    write_image(sheet, contact_sheet([(answer.caption, answer.frames) for answer in named[:16]]))
    console.print(str(sheet), soft_wrap=True)
