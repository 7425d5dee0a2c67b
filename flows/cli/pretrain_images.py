"""How well videos that begin with an image keep it and follow a motion, as the judge reads it from the pixels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from effivmt.catalog import Clip, load_catalog
from effivmt.config import Params
from effivmt.media.video import read_frames, write_image
from effivmt.method.backbone import Backbone
from effivmt.pipeline import stages
from effivmt.pipeline.healing import heal
from effivmt.pipeline.reconstruction import psnr
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.transfer import adapter_folder
from effivmt.pipeline.workspace import Workspace, open_workspace
from effivmt.pretrain.examinations.images import Picture, draw_pictures, score
from effivmt.pretrain.examinations.judge import judge
from effivmt_flows.cli.pretrain_transfer import SINGLE
from effivmt_flows.cli.progress import stage_progress
from effivmt_flows.cli.tables import results_console

MOTIONS = 4
"""So many clips of the catalog are taken."""
PLACES = ("anywhere", "as the reference's")
COLUMNS = ("first frame, dB", "of the autoencoder, dB", "colour", "shape", "path", "path, no adapter")


def run_images(catalog: Path, work_folder: Path, params: Params, store: Path, *, count: int, captions: bool) -> None:
    """Transfers the motion of the catalog's first clips of one object to `count` unseen images each, and prints what
    the judge reads in the results.

    Each image is taken as it is, with its object anywhere, and with its object where the reference's begins. captions:
    whether the images have captions as prompts, or none. Correlations are of the object's path with that in the
    reference. The images are kept in `work_folder`.
    """
    clips = [clip for clip in load_catalog(catalog).clips if clip.group == SINGLE][:MOTIONS]
    name = f"{Path(params.backbone.path).name}: {count} images {'with captions' if captions else 'without a prompt'}"
    table = Table(title=name, title_justify="left")
    for heading in ("clip", "object begins", *COLUMNS):
        table.add_column(heading)
    every: dict[str, list[tuple[float, ...]]] = {place: [] for place in PLACES}
    work_folder.mkdir(parents=True, exist_ok=True)
    with stage_progress(quiet=False) as callback:
        work = open_workspace(params, store, callback=callback)
        for clip in clips:
            for trial in heal(callback):
                with trial:
                    ingested = stages.ingest(work, clip)
            true_path = judge(load_tensor(ingested, "frames").numpy()).path
            pictures = draw_pictures(count)
            placed = [*((PLACES[0], it) for it in pictures), *((PLACES[1], it.at(true_path[0])) for it in pictures)]
            files = [work_folder / f"{clip.clip}-{number}.png" for number in range(len(placed))]
            for file, (_, picture) in zip(files, placed, strict=True):
                write_image(file, picture.image)
            prompts = tuple(picture.caption if captions else "" for _, picture in placed)
            moved = clip.model_copy(update={"images": tuple(files), "prompts": prompts})
            for trial in heal(callback):
                with trial:
                    videos = _render(work, moved)
            rows: dict[str, list[tuple[float, ...]]] = {place: [] for place in PLACES}
            for number, made in enumerate(videos):
                place, picture = placed[number // len(params.render.seeds)]
                given_back = psnr(picture.image[None], _given_back(work.backbone, picture.image))
                rows[place].append(_row(made, picture, true_path, given_back=given_back))
            for place in PLACES:
                table.add_row(clip.clip, place, *_means(rows[place]))
                every[place] += rows[place]
    table.add_section()
    for place in PLACES:
        table.add_row(f"{len(every[place])} videos", place, *_means(every[place]))
    results_console().print(table)


def _render(work: Workspace, clip: Clip) -> list[dict[str, np.ndarray]]:
    """The frames of each video of a clip with its adapter and, if asked for, without; no metrics are measured."""
    work = work.for_clip(clip)
    stages.check_clip_images(work, clip)
    ingested = stages.ingest(work, clip)
    classified = stages.heads(work, clip, ingested)
    appearance = stages.spatial(work, clip, ingested, classified)
    motion = stages.temporal(work, clip, ingested, classified, appearance=appearance)
    with adapter_folder(motion) as adapter:
        rendered = stages.render(work, clip.prompts, adapter, images=clip.images)
    return [{kind: read_frames(made.file("video.mp4"))[0] for kind, made in one.by_kind.items()} for one in rendered]


def _row(
    made: Mapping[str, np.ndarray], picture: Picture, true_path: np.ndarray, *, given_back: float
) -> tuple[float, ...]:
    """The `COLUMNS` of one video with the adapter and, where it was rendered, without."""
    scores = score(made["adapter"], picture, true_path)
    alone = score(made["baseline"], picture, true_path).path if "baseline" in made else np.nan
    return scores.first, given_back, scores.colour, scores.shape, scores.path, alone


def _means(rows: Sequence[tuple[float, ...]]) -> list[str]:
    return [f"{np.mean(values):.3f}" for values in zip(*rows, strict=True)]


def _given_back(backbone: Backbone, image: np.ndarray) -> np.ndarray:
    """An image uint8 (H, W, 3) as the autoencoder gives it back, a video (1, H, W, 3)."""
    return backbone.decode_video(backbone.encode_video(image[None]))
