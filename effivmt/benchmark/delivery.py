"""Writes the out folder of a comparison: tables, picture, page, and the videos that the page shows.

results.parquet (a row for each cell), results.json, results.md, scatter.png, index.html, and in videos/<clip>/:
reference.mp4 and <method>-<number of the prompt>.mp4, with several seeds <method>-<number>-seed<seed>.mp4.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from effivmt.benchmark.cells import Cell, JobResult
from effivmt.benchmark.markdown import markdown
from effivmt.benchmark.methods import Method
from effivmt.benchmark.page import ClipTiles, Tile, render_page
from effivmt.benchmark.results import RunInfo, Summary, row_of, summarise, write_rows
from effivmt.benchmark.scatter import scatter
from effivmt.benchmark.suite import suite
from effivmt.benchmark.tuning import tuning_scenes
from effivmt.catalog import Clip
from effivmt.media.video import write_image, write_video
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.store.artifact import Artifact
from effivmt.store.disk_errors import write_errors
from effivmt.store.files import atomic_write, copy_verified


def write_comparison(out: Path, run: RunInfo, methods: Sequence[Method], *, results: Sequence[JobResult]) -> Summary:
    """Writes all files and returns what results.json holds; videos of an earlier run that this one lacks are deleted.

    Raises DamageError where an artifact is damaged, EffiVMTError where the folder cannot be written.
    """
    unsaid = {scene.name: scene.unsaid for scene in (*suite(), *tuning_scenes())}
    rows = [row_of(result, cell, unsaid.get(cell.clip)) for result in results for cell in result.cells]
    summary = summarise(run, methods, rows)
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        clips = _place_videos(out / "videos", results)
        _write(out / "results.parquet", lambda path: write_rows(path, rows))
        text = json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
        _write(out / "results.json", lambda path: path.write_text(text, encoding="utf-8"))
        _write(out / "results.md", lambda path: path.write_text(markdown(summary), encoding="utf-8"))
        _write(out / "scatter.png", lambda path: write_image(path, scatter(summary)))
        page = render_page(summary, clips, out / "scatter.png", out)
        _write(out / "index.html", lambda path: path.write_text(page, encoding="utf-8"))
    return summary


def _write(path: Path, write: Callable[[Path], object]) -> None:
    with atomic_write(path) as temporary:
        write(temporary)


def _place_videos(folder: Path, results: Sequence[JobResult]) -> list[ClipTiles]:
    """Copies the videos into `folder` and returns what the page shows of each clip."""
    earlier, clips = set(folder.glob("*/*.mp4")), []
    by_clip: dict[str, list[JobResult]] = {}
    for result in results:
        by_clip.setdefault(result.job.clip.clip, []).append(result)
    for name, own in by_clip.items():
        own_folder, clip = folder / name, own[0].job.clip
        own_folder.mkdir(parents=True, exist_ok=True)
        compared = next((result.reference for result in own if result.reference is not None), None)
        reference = None
        if compared is not None:
            reference = own_folder / "reference.mp4"
            _write_reference(reference, compared, own[0].job.params.ingest.fps)
        tiles: dict[str, list[Tile]] = {prompt: [] for prompt in clip.prompts}
        for result in own:
            for cell in result.cells:
                video = own_folder / _video_name(clip, cell, several=len(result.job.params.render.seeds) > 1)
                if cell.video is not None:
                    copy_verified(cell.video, "video.mp4", video)
                tiles[cell.prompt].append(_tile(result.job.method, cell, video if cell.video is not None else None))
        clips.append(ClipTiles(name, clip.group, clip.caption, reference, tiles))
    for path in earlier - {path for clip in clips for path in clip.videos}:
        path.unlink()
    return clips


def _write_reference(path: Path, compared: Artifact, fps: float) -> None:
    """Writes the clip, or the wanted part of it, as the stages read it, at their size and rate."""
    frames = load_tensor(compared, "frames").numpy()
    _write(path, lambda temporary: write_video(temporary, frames, fps))


def _video_name(clip: Clip, cell: Cell, *, several: bool) -> str:
    number = clip.prompts.index(cell.prompt) + 1
    return f"{cell.method}-{number}{f'-seed{cell.seed}' if several else ''}.mp4"


def _tile(method: Method, cell: Cell, video: Path | None) -> Tile:
    return Tile(method.name, method.kind, method.title, cell.seed, video, cell.error or cell.cannot, cell.metrics or {})
