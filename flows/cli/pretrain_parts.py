"""How well transfer takes the wanted one of two motions on a backbone, as the judge reads it from the pixels."""

from pathlib import Path

import numpy as np
from rich.table import Table

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.media.video import read_frames, write_video
from effivmt.pipeline.healing import heal
from effivmt.pipeline.transfer import run_clip
from effivmt.pipeline.workspace import open_workspace
from effivmt.pretrain.examinations.parts import draw_parts, score_part
from effivmt_flows.cli.progress import stage_progress
from effivmt_flows.cli.tables import results_console


def run_parts(work_folder: Path, params: Params, store: Path) -> None:
    """Draws the clips of two motions, transfers the wanted one of each, and prints what the judge reads in the results.

    Correlations of paths: with the motion that was wanted (1 is best) and with the other (0 is best), with the adapter
    and, where params.render.baseline says so, without. The clips' files are kept in `work_folder`.
    """
    table = Table(title=f"{Path(params.backbone.path).name}: one of two motions", title_justify="left")
    for heading in ("motion", "prompt", "seed", "wanted", "other", "wanted, no adapter", "other, no adapter"):
        table.add_column(heading)
    rows = []
    work_folder.mkdir(parents=True, exist_ok=True)
    with stage_progress(quiet=False) as callback:
        work = open_workspace(params, store, callback=callback)
        for part in draw_parts(params.ingest.num_frames):
            name = part.name.replace(", ", "-")
            video = work_folder / f"{name}.mp4"
            write_video(video, part.frames, params.ingest.fps)
            clip = Clip(
                clip=name,
                video=video,
                caption=part.caption,
                prompts=part.prompts,
                motion_of=part.motion_of,
                region=part.region,
            )
            for trial in heal(callback):
                with trial:
                    rendered = run_clip(work, clip).rendered
                    judged = [
                        [score_part(part, one.prompt, read_frames(it.file("video.mp4"))[0]) for it in pair]
                        for one, pair in ((one, one.by_kind.values()) for one in rendered)
                    ]
            for one, scores in zip(rendered, judged, strict=True):
                values = [value for score in scores for value in (score.wanted, score.other)]
                rows.append([*values, *[np.nan] * (4 - len(values))])
                table.add_row(part.name, one.prompt, str(one.seed), *(f"{value:.2f}" for value in rows[-1]))
    table.add_section()
    table.add_row("mean", f"{len(rows)} videos", "", *(f"{value:.3f}" for value in np.mean(np.array(rows), axis=0)))
    results_console().print(table)
