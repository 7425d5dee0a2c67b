"""How well transfer works on the embedded backbone, as the judge reads it from the pixels of the results."""

from pathlib import Path

import numpy as np
from rich.table import Table

from effivmt.catalog import load_catalog
from effivmt.config import Params
from effivmt.media.video import read_frames
from effivmt.pipeline.healing import heal
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.transfer import run_clip
from effivmt.pipeline.workspace import open_workspace
from effivmt.pretrain.examinations.judge import judge, path_scores
from effivmt_flows.cli.progress import stage_progress
from effivmt_flows.cli.tables import results_console

SINGLE = "single object"


def run_transfer(catalog: Path, params: Params, store: Path) -> None:
    """Takes the catalog's clips of one object through all stages and prints what the judge reads in the results.

    A path is compared with the one that the judge reads in the reference: correlation, and rms error in frame widths.
    """
    clips = [clip for clip in load_catalog(catalog).clips if clip.group == SINGLE]
    table = Table(
        title=f"{Path(params.backbone.path).name}: motion of {len(clips)} clips of {catalog.name}", title_justify="left"
    )
    for heading in ("clip", "prompt", "correlation", "rms error", "colour", "shape", "correlation without adapter"):
        table.add_column(heading)
    rows = []
    with stage_progress(quiet=False) as callback:
        work = open_workspace(params, store, callback=callback)
        for clip in clips:
            for trial in heal(callback):
                with trial:
                    result = run_clip(work, clip)
                    frames = load_tensor(result.ingested, "frames").numpy()
                    judged = [
                        {kind: judge(read_frames(made.file("video.mp4"))[0]) for kind, made in rendered.by_kind.items()}
                        for rendered in result.rendered
                    ]
            true_path = judge(frames).path
            for rendered, seen in zip(result.rendered, judged, strict=True):
                correlation, rms = path_scores(seen["adapter"].path, true_path)
                alone = path_scores(seen["baseline"].path, true_path)[0] if "baseline" in seen else np.nan
                words = rendered.prompt.split()
                rows.append((correlation, rms, seen["adapter"].colour in words, seen["adapter"].shape in words, alone))
                table.add_row(clip.clip, rendered.prompt, *(shown(value, 2) for value in rows[-1]))
    table.add_section()
    table.add_row("mean", f"{len(rows)} videos", *(shown(np.mean(values), 3) for values in zip(*rows, strict=True)))
    results_console().print(table)


def shown(value: float, digits: int) -> str:
    """A number; "–" for NaN, where no video was rendered without the adapter."""
    return "–" if np.isnan(value) else f"{value:.{digits}f}"
