"""One stage over a whole catalog: what every stage of dvc.yaml runs.

A stage's folder `<out>/<stage>/` holds a folder per clip with the files of the stage's artifacts, `files.json` with the
digest of each, and for some stages a table over all clips. Nothing in it depends on when, where or how fast it was
made: the same inputs give the same bytes.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from effivmt.catalog import Catalog, Clip
from effivmt.pipeline.catalog_run import attempt, faulty_rows, summarize
from effivmt.pipeline.excerpt import load_excerpt
from effivmt.pipeline.healing import heal
from effivmt.pipeline.outcomes import RunSummary
from effivmt.pipeline.outputs import video_names, without_adapter
from effivmt.pipeline.runner import StageRunner
from effivmt.pipeline.stages import (
    STAGES,
    RenderedVideo,
    check_clip_images,
    evaluate,
    heads,
    ingest,
    mask,
    render,
    spatial,
    temporal,
)
from effivmt.pipeline.tables import write_losses, write_metrics, write_summary
from effivmt.pipeline.transfer import adapter_folder
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact
from effivmt.store.disk_errors import write_errors
from effivmt.store.files import atomic_write, copy_verified

FILES = "files.json"


def run_stage_over(work: Workspace, catalog: Catalog, stage: str, out: Path) -> RunSummary:
    """Takes every clip up to one stage and writes `out/<stage>/`; `evaluate` also writes `out/metrics/` and
    `out/summary.json`.

    The stages before it are hits, or run again where the store has lost their results. A clip that fails stops no
    other and has no files here. EffiVMTError where the folder cannot be written.
    """
    assert stage in STAGES, stage
    start, folder, outcomes = time.perf_counter(), out / stage, faulty_rows(catalog)
    placed: dict[str, dict[str, str]] = {}
    for clip in catalog.clips:
        runner = StageRunner(work.callback)

        def process(clip: Clip = clip, runner: StageRunner = runner) -> None:
            for trial in heal(work.callback):
                with trial:
                    files = run_up_to(stage, work.for_clip(clip), clip, runner)
                    runner.stage = "outputs"
                    placed[clip.clip] = _place_files(files, folder / clip.clip)

        work.callback.on_clip_start(clip.clip)
        outcomes.append(attempt(clip, runner, process))
        work.callback.on_clip_end(outcomes[-1])
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder, placed)
        if stage in ("spatial", "temporal"):
            write_losses(folder, list(placed))
        if stage == "evaluate":
            write_metrics(folder, out / "metrics", list(placed))
            write_summary(out / "summary.json", out / "metrics" / "mean.json")
        with atomic_write(folder / FILES) as temporary:
            temporary.write_text(json.dumps(placed, indent=1) + "\n", encoding="utf-8")
    return summarize(catalog.path.name, outcomes, time.perf_counter() - start)


def run_up_to(stage: str, work: Workspace, clip: Clip, runner: StageRunner) -> dict[str, tuple[Artifact, str]]:
    """Runs the stages of a clip up to `stage`; returns (artifact, its file) by the name under which it is placed."""
    check_clip_images(work, clip)
    ingested = runner.run(ingest, work, clip)
    if stage == "ingest":
        return _all_files(ingested)
    seen = runner.run(mask, work, clip, ingested) if clip.chosen else ingested
    classified = runner.run(heads, work, clip, ingested)
    if stage == "heads":
        return _all_files(classified)
    work = work.for_frames(load_excerpt(ingested).num_frames)
    appearance = runner.run(spatial, work, clip, ingested, classified)
    if stage == "spatial":
        return _all_files(appearance)
    motion = runner.run(temporal, work, clip, seen, classified, appearance=appearance)
    if stage == "temporal":
        return _all_files(motion)
    with adapter_folder(motion) as adapter:
        rendered = runner.run(render, work, clip.prompts, adapter, images=clip.images)
    if stage == "render":
        return _videos(clip, rendered)
    return _all_files(runner.run(evaluate, work, clip, seen, rendered))


def _all_files(artifact: Artifact) -> dict[str, tuple[Artifact, str]]:
    return {name: (artifact, name) for name in artifact.files}


def _videos(clip: Clip, rendered: list[RenderedVideo]) -> dict[str, tuple[Artifact, str]]:
    files = {}
    for name, video in zip(video_names(clip.prompts, rendered), rendered, strict=True):
        files[name] = (video.artifact, "video.mp4")
        if video.without_adapter is not None:
            files[without_adapter(Path(name)).name] = (video.without_adapter, "video.mp4")
    return files


def _place_files(files: Mapping[str, tuple[Artifact, str]], folder: Path) -> dict[str, str]:
    """Copies the files of artifacts into a folder; returns their digests by name.

    Copies, never links: DVC may write-protect, replace or link the files here, and none of that may reach the store.
    """
    placed = {}
    with write_errors(folder):
        for name, (artifact, source) in sorted(files.items()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy_verified(artifact, source, folder / name)
            placed[name] = artifact.digest(source)
    return placed


def _remove_stale(folder: Path, placed: Mapping[str, Mapping[str, str]]) -> None:
    """Removes what an earlier call placed and this one did not; files of others stay."""
    earlier: dict[str, dict[str, str]] = {}
    with suppress(FileNotFoundError, ValueError):
        earlier = json.loads((folder / FILES).read_text(encoding="utf-8"))
    for clip, files in earlier.items():
        for name in files.keys() - placed.get(clip, {}).keys():
            path = folder / clip / name
            path.unlink(missing_ok=True)
            for parent in path.relative_to(folder).parents[:-1]:
                with suppress(OSError):  # it is not empty yet
                    (folder / parent).rmdir()
