"""One step over a whole catalog: what every stage of dvc.yaml runs.

A step's folder `<out>/<stage>/` holds a folder a clip with the files of the step's artifacts, `files.json` with the
digest of each, and for some steps a table over all clips. Nothing in it tells when, where or how fast it was made: the
same inputs give the same bytes.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from effivmt.catalog import Catalog, Clip
from effivmt.pipeline.catalog_run import CatalogWatch, Noting, attempt
from effivmt.pipeline.outputs import video_names, without_adapter
from effivmt.pipeline.stages import STAGES
from effivmt.pipeline.tables import write_losses, write_metrics
from effivmt.pipeline.transfer import StageRun, stage_by_stage
from effivmt.pipeline.workspace import Workspace
from effivmt.store.artifact import Artifact
from effivmt.store.files import atomic_write, copy_verified, write_errors

FILES = "files.json"


def run_stage_over(work: Workspace, catalog: Catalog, stage: str, out: Path, watch: CatalogWatch) -> dict[str, object]:
    """Takes every clip up to one stage and writes `out/<stage>/`; `evaluate` also writes `out/metrics/`.

    The stages before it are hits, or are done again where the store has lost them. A clip that fails stops no other and
    has no files here. Returns clips, seconds, and how many are `hit`, `done` and `failed`, as run.json of a run has
    them. Raises EffiVMTError where the folder cannot be written.
    """
    assert stage in STAGES, stage
    start, folder, outcomes, placed = time.perf_counter(), out / stage, [], {}
    work.progress = watch.advanced
    for clip in catalog.clips:

        def process(noting: Noting, clip: Clip = clip) -> None:
            run = next(run for run in stage_by_stage(work, clip, watch=noting) if run.stage == stage)
            noting.stage = "outputs"
            placed[clip.clip] = _place_files(work, clip, run, folder / clip.clip)

        watch.began(clip.clip)
        outcomes.append(attempt(clip, process, watch))
        watch.ended(outcomes[-1])
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder, placed)
        if stage in ("spatial", "temporal"):
            write_losses(folder, list(placed))
        if stage == "evaluate":
            write_metrics(folder, out / "metrics", list(placed))
        with atomic_write(folder / FILES) as temporary:
            temporary.write_text(json.dumps(placed, indent=1) + "\n", encoding="utf-8")
    counts = {status: sum(outcome.status == status for outcome in outcomes) for status in ("hit", "done", "failed")}
    rows = [asdict(outcome) for outcome in outcomes]
    return {"clips": rows, "seconds": round(time.perf_counter() - start, 3), **counts}


def _place_files(work: Workspace, clip: Clip, run: StageRun, folder: Path) -> dict[str, str]:
    """Copies the files of a stage's artifacts; returns their digests by name.

    Copies, never links: DVC may write-protect, replace or link what lies here, and none of it may reach the store.
    """
    placed = {}
    with write_errors(folder):
        for name, (artifact, source) in sorted(_sources(clip, run).items()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy_verified(work.store, artifact, source, folder / name)
            placed[name] = artifact.digest(source)
    return placed


def _sources(clip: Clip, run: StageRun) -> dict[str, tuple[Artifact, str]]:
    """Artifact and its file, by the name under which the file is placed."""
    if isinstance(run.result, Artifact):
        return {name: (run.result, name) for name in run.result.files}
    sources = {}
    for name, one in zip(video_names(clip.prompts, run.result), run.result, strict=True):
        sources[name] = (one.artifact, "video.mp4")
        if one.baseline is not None:
            sources[without_adapter(Path(name)).name] = (one.baseline, "video.mp4")
    return sources


def _remove_stale(folder: Path, placed: Mapping[str, Mapping[str, str]]) -> None:
    """Removes what an earlier call has placed and this one has not; files of others stay."""
    earlier: dict[str, dict[str, str]] = {}
    with suppress(FileNotFoundError, ValueError):
        earlier = json.loads((folder / FILES).read_text(encoding="utf-8"))
    for clip, files in earlier.items():
        for name in files.keys() - placed.get(clip, {}).keys():
            path = folder / clip / name
            path.unlink(missing_ok=True)
            for parent in path.relative_to(folder).parents[:-1]:
                with suppress(OSError):  # not empty yet
                    (folder / parent).rmdir()
