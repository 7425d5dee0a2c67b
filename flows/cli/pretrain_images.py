"""How well videos that begin with an image keep it and follow a motion, as the judge reads it from the pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.table import Table

from effivmt.catalog import Clip, load_catalog
from effivmt.config import Params
from effivmt.media.video import read_frames, write_image, write_video
from effivmt.pipeline import stages
from effivmt.pipeline.healing import heal
from effivmt.pipeline.reconstruction import psnr
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.transfer import adapter_folder
from effivmt.pipeline.workspace import Workspace, open_workspace
from effivmt.pretrain.examinations.images import Picture, draw_pictures, score, score_true_copy
from effivmt.pretrain.examinations.judge import judge
from effivmt_flows.cli.pretrain_transfer import SINGLE, shown
from effivmt_flows.cli.progress import stage_progress
from effivmt_flows.cli.tables import results_console

MOTIONS = 4
"""So many clips of the catalog are taken."""
PLACED = 4
"""So many of the images are taken once more, with the object where the reference's begins."""
ROOM = 0.95
"""An image has room for a motion if a true copy, its object displaced as the reference's is, has this correlation or
more. In the other images the displaced object leaves the frame."""
COLUMNS = (
    "videos",
    "first frame",
    "autoencoder's",
    "that as mp4",
    "colour",
    "shape",
    "path",
    "true copy",
    "path, no adapter",
)


def run_images(catalog: Path, work_folder: Path, params: Params, store: Path, *, count: int, captions: bool) -> None:
    """Transfers the motion of the catalog's first clips of one object to `count` unseen images each, and prints what
    the judge reads in the results.

    Each image is taken as it is, with its object anywhere, and the first ones once more with their object where the
    reference's begins; these are not rendered without the adapter. The last row has the images with `ROOM` alone.
    captions: whether the images have captions as prompts, or none. First frames are compared with the image;
    correlations are of the object's path with that in the reference. The images are kept in `work_folder`. Called
    again, it goes on with what the store has.
    """
    clips = [clip for clip in load_catalog(catalog).clips if clip.group == SINGLE][:MOTIONS]
    name = f"{Path(params.backbone.path).name}: {count} images {'with captions' if captions else 'without a prompt'}"
    table = Table(title=name, title_justify="left", caption="first frames: PSNR against the image, dB")
    for heading in ("clip", "object begins", *COLUMNS):
        table.add_column(heading)
    every: dict[str, list[tuple[float, ...]]] = {}
    with_room: list[tuple[float, ...]] = []
    pictures = draw_pictures(count)
    alone = params.model_copy(update={"render": params.render.model_copy(update={"baseline": False})})
    with stage_progress(quiet=False) as callback:
        work = open_workspace(params, store, callback=callback)
        for clip in clips:
            for trial in heal(callback):
                with trial:
                    ingested = stages.ingest(work, clip)
            true_path = judge(load_tensor(ingested, "frames").numpy()).path
            placed = [picture.at(true_path[0]) for picture in pictures[:PLACED]]
            for place, some, asked in (("anywhere", pictures, params), ("as the reference's", placed, alone)):
                prompts = tuple(picture.caption if captions else "" for picture in some)
                files = _write_images(work_folder / f"{clip.clip} {place}", some)
                moved = clip.model_copy(update={"images": files, "prompts": prompts})
                for trial in heal(callback):
                    with trial:
                        videos = _render(replace(work, params=asked), moved)
                rows = []
                back = [_given_back(work, picture.image, work_folder / "still.mp4") for picture in some]
                copies = [score_true_copy(picture, true_path) for picture in some]
                for number, made in enumerate(videos):
                    which = number // len(params.render.seeds)
                    rows.append(_row(made, some[which], true_path, given_back=back[which], copy=copies[which]))
                    if place == "anywhere" and copies[which] >= ROOM:
                        with_room.append(rows[-1])
                table.add_row(clip.clip, place, str(len(rows)), *_means(rows))
                every.setdefault(place, []).extend(rows)
    table.add_section()
    for place, rows in {**every, "anywhere, with room": with_room}.items():
        table.add_row("all", place, str(len(rows)), *_means(rows))
    results_console().print(table)


def _write_images(folder: Path, pictures: Sequence[Picture]) -> tuple[Path, ...]:
    """Writes images as PNG files to a folder, made where it is absent."""
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(folder / f"{number}.png" for number in range(len(pictures)))
    for file, picture in zip(files, pictures, strict=True):
        write_image(file, picture.image)
    return files


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
    made: Mapping[str, np.ndarray],
    picture: Picture,
    true_path: np.ndarray,
    *,
    given_back: tuple[float, float],
    copy: float,
) -> tuple[float, ...]:
    """The `COLUMNS` but the first of one video with the adapter and, where it was rendered, without."""
    scores = score(made["adapter"], picture, true_path)
    alone = score(made["baseline"], picture, true_path).path if "baseline" in made else np.nan
    return scores.first, *given_back, scores.colour, scores.shape, scores.path, copy, alone


def _means(rows: Sequence[tuple[float, ...]]) -> list[str]:
    return [shown(np.mean(values), 3) for values in zip(*rows, strict=True)]


def _given_back(work: Workspace, image: np.ndarray, file: Path) -> tuple[float, float]:
    """PSNR of an image uint8 (H, W, 3) as the autoencoder gives it back, and as a still video of that does, in dB.

    The video is written to `file` as rendered ones are, and is as long, so that its compression is theirs.
    """
    back, size = work.backbone.decode_video(work.backbone.encode_video(image[None])), work.params.ingest
    write_video(file, np.repeat(back, size.num_frames, axis=0), size.fps)
    return psnr(image[None], back), psnr(image[None], read_frames(file)[0][:1])
