"""How well videos that begin with an image keep it and follow a motion, as the judge reads it from the pixels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.media.video import read_frames, write_image, write_video
from effivmt.method.backbone import Backbone
from effivmt.pipeline.healing import heal
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.transfer import run_clip
from effivmt.pipeline.workspace import open_workspace
from effivmt.pretrain.examinations.images import CAPTION, Picture, draw_pictures, draw_references, psnr, score
from effivmt.pretrain.examinations.judge import judge
from effivmt_flows.cli.progress import stage_progress
from effivmt_flows.cli.tables import results_console

PLACES = ("anywhere", "as the reference's")
COLUMNS = ("first frame, dB", "of the autoencoder, dB", "colour", "shape", "path", "path, no adapter")


def run_images(work_folder: Path, params: Params, store: Path, *, count: int, captions: bool) -> None:
    """Transfers four held-out motions to `count` unseen images each, and prints what the judge reads in the results.

    Each image is taken as it is, with its object anywhere, and with its object where the reference's begins. captions:
    whether the images have captions as prompts, or none. Correlations are of the object's path with that in the
    reference. The files are kept in `work_folder`.
    """
    name = f"{Path(params.backbone.path).name}: {count} images {'with captions' if captions else 'without a prompt'}"
    table = Table(title=name, title_justify="left")
    for heading in ("motion", "object begins", *COLUMNS):
        table.add_column(heading)
    every: dict[str, list[tuple[float, ...]]] = {place: [] for place in PLACES}
    work_folder.mkdir(parents=True, exist_ok=True)
    with stage_progress(quiet=False) as callback:
        work = open_workspace(params, store, callback=callback)
        for motion, reference in draw_references(params.ingest.num_frames).items():
            video = work_folder / f"{motion.replace(' ', '-')}.mp4"
            write_video(video, reference, params.ingest.fps)
            start = judge(reference).path[0]
            placed = [
                (place, it if place == PLACES[0] else it.at(start)) for place in PLACES for it in draw_pictures(count)
            ]
            files = [work_folder / f"{video.stem}-{number}.png" for number in range(len(placed))]
            for file, (_, picture) in zip(files, placed, strict=True):
                write_image(file, picture.image)
            prompts = tuple(picture.caption if captions else "" for _, picture in placed)
            clip = Clip(clip=video.stem, video=video, caption=CAPTION, images=tuple(files), prompts=prompts)
            for trial in heal(callback):
                with trial:
                    result = run_clip(work, clip)
                    true_path = judge(load_tensor(result.ingested, "frames").numpy()).path
                    videos = [
                        {kind: read_frames(made.file("video.mp4"))[0] for kind, made in one.by_kind.items()}
                        for one in result.rendered
                    ]
            rows: dict[str, list[tuple[float, ...]]] = {place: [] for place in PLACES}
            for number, made in enumerate(videos):
                place, picture = placed[number // len(params.render.seeds)]
                given_back = psnr(_given_back(work.backbone, picture.image), picture.image)
                rows[place].append(_row(made, picture, true_path, given_back=given_back))
            for place in PLACES:
                table.add_row(motion, place, *_means(rows[place]))
                every[place] += rows[place]
    table.add_section()
    for place in PLACES:
        table.add_row(f"{len(every[place])} videos", place, *_means(every[place]))
    results_console().print(table)


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
    """An image uint8 (H, W, 3) as the autoencoder gives it back."""
    return backbone.decode_video(backbone.encode_video(image[None]))[0]
