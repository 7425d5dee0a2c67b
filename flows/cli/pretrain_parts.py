"""How well transfer takes the wanted one of two motions, and joins those of two clips, as the judge reads it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.table import Table

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.media.video import read_frames, write_video
from effivmt.pipeline import stages
from effivmt.pipeline.healing import heal
from effivmt.pipeline.stages import RenderedVideo, Strengths
from effivmt.pipeline.transfer import TransferResult, adapter_folder, run_clip
from effivmt.pipeline.workspace import Workspace, open_workspace
from effivmt.pretrain.examinations.parts import TOGETHER, PartClip, draw_parts, score_part, score_together
from effivmt.store import Artifact
from effivmt_flows.cli.progress import stage_progress
from effivmt_flows.cli.tables import results_console

Score = Callable[[str, np.ndarray], tuple[float, float]]
"""Scores frames uint8 (T, H, W, 3) that were rendered for a prompt."""


def run_parts(work_folder: Path, params: Params, store: Path) -> None:
    """Draws the clips of two motions, transfers the wanted one of each, and prints what the judge reads in the results;
    then the same of a camera's motion of one clip and the object's of another, together.

    Correlations of paths: with the motion that was wanted (1 is best) and with the other (0 is best), or with both that
    were joined (1 is best), with the adapter and, where params.render.baseline says so, without. The clips' files are
    kept in `work_folder`.
    """
    backbone = Path(params.backbone.path).name
    single, rows = _table(f"{backbone}: one of two motions", "motion", ("wanted", "other")), []
    joint = _table(f"{backbone}: the motions of two clips together", "motions", ("camera", "object"))
    parts = {part.name: part for part in draw_parts(params.ingest.num_frames)}
    tuned: dict[str, Artifact] = {}
    work_folder.mkdir(parents=True, exist_ok=True)
    with stage_progress(quiet=False) as callback:
        work = open_workspace(params, store, callback=callback)
        for part in parts.values():
            clip = _written(part, work_folder, params.ingest.fps)
            for trial in heal(callback):
                with trial:
                    result = run_clip(work, clip)
                    judged = _judged(result.rendered, partial(score_part, part))
            tuned[part.name] = _tuned(result)
            rows += _add(single, part.name, result.rendered, judged)
        together = []
        for names in TOGETHER:
            camera, thing = (parts[name] for name in names)
            for trial in heal(callback):
                with trial:
                    rendered = _together(work, [tuned[name] for name in names], camera.prompts)
                    judged = _judged(rendered, partial(score_together, camera, thing))
            together += _add(joint, " + ".join(names), rendered, judged)
    console = results_console()
    for table, found in ((single, rows), (joint, together)):
        table.add_section()
        means = np.mean(np.array(found), axis=0)
        table.add_row("mean", f"{len(found)} videos", "", *(f"{value:.3f}" for value in means))
        console.print(table)


def _together(work: Workspace, tuned: Sequence[Artifact], prompts: Sequence[str]) -> list[RenderedVideo]:
    """Videos of two adapters together, each at the params' strengths, as `effivmt render A B` makes them."""
    own = work.params.render
    strengths = [Strengths(own.appearance_strength, own.motion_strength)] * len(tuned)
    with adapter_folder(tuned[0]) as one, adapter_folder(tuned[1]) as other:
        how = stages.arrange(work, [one, other], strengths)
        return stages.render(how.work, prompts, how.adapter, regional=how.regional)


def _written(part: PartClip, folder: Path, fps: float) -> Clip:
    name = part.name.replace(", ", "-")
    video = folder / f"{name}.mp4"
    write_video(video, part.frames, fps)
    return Clip(
        clip=name,
        video=video,
        caption=part.caption,
        prompts=part.prompts,
        motion_of=part.motion_of,
        region=part.region,
    )


def _tuned(result: TransferResult) -> Artifact:
    assert result.motion is not None  # `run_clip` is EffiVMT, which tunes
    return result.motion


def _judged(rendered: Sequence[RenderedVideo], score: Score) -> list[list[float]]:
    """Of each video the scores with the adapter and without; NaN where it was not rendered without."""
    rows = []
    for one in rendered:
        found = [score(one.prompt, read_frames(it.file("video.mp4"))[0]) for it in one.by_kind.values()]
        rows.append([*np.ravel(found), *[np.nan] * (4 - 2 * len(found))])
    return rows


def _table(title: str, first: str, scores: tuple[str, str]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in (first, "prompt", "seed", *scores, *(f"{score}, no adapter" for score in scores)):
        table.add_column(heading)
    return table


def _add(table: Table, name: str, rendered: Sequence[RenderedVideo], rows: list[list[float]]) -> list[list[float]]:
    for one, row in zip(rendered, rows, strict=True):
        table.add_row(name, one.prompt, str(one.seed), *(f"{value:.2f}" for value in row))
    return rows
