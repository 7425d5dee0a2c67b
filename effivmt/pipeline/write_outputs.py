"""Fills the out folder of a clip: copies from the store what a user takes away, and draws what shows it."""

import json
import re
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from effivmt import __version__
from effivmt.media.figures import contact_sheet
from effivmt.media.video import read_frames, write_image, write_video
from effivmt.pipeline.outputs import Outputs, without_adapter
from effivmt.pipeline.transfer import StageRun, Transferred
from effivmt.pipeline.workspace import Workspace
from effivmt.report.clip_page import Report, Result, Timing, render_report
from effivmt.store.files import atomic_write, copy_verified

PACKAGES = ("torch", "diffusers", "peft", "transformers")
"""Whose versions the report names, besides our own."""

_VIDEO_NAME = re.compile(r"video-\d+(-seed-?\d+)?(-without-adapter)?\.mp4")


def fill(work: Workspace, result: Transferred, outputs: Outputs, made_of: str) -> None:
    """Writes every file of a clip's out folder; run.json, which vouches for all others, comes last.

    Videos that an earlier run left there and this one does not have go.
    """
    folder = outputs.folder
    outputs.adapter.mkdir(parents=True, exist_ok=True)
    outputs.run.unlink(missing_ok=True)
    earlier = _listed_videos(outputs.metrics)
    for target, rendered in zip(outputs.videos, result.rendered, strict=True):
        copy_verified(work.store, rendered.artifact, "video.mp4", target)
        if rendered.baseline is not None:
            copy_verified(work.store, rendered.baseline, "video.mp4", without_adapter(target))
    copy_verified(work.store, result.classified, "heads.png", outputs.heads)
    in_adapter = [name for name in result.motion.files if name.startswith("adapter/")]
    for name in sorted(in_adapter, key=lambda name: name == "adapter/adapter.json"):  # last: it vouches for the rest
        copy_verified(work.store, result.motion, name, folder / name)
    frames = load_file(result.ingested.file("frames.safetensors"))["frames"].numpy()
    with atomic_write(outputs.reference) as temporary:
        write_video(temporary, frames, work.params.ingest.fps)
    with atomic_write(outputs.sheet) as temporary:
        write_image(temporary, _sheet(result, frames))
    for path, document in ((outputs.metrics, _metrics(result, outputs)), (outputs.losses, result.losses)):
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with atomic_write(outputs.report) as temporary:
        temporary.write_text(render_report(_report(work, result, outputs)), encoding="utf-8")
    for name in earlier - _listed_videos(outputs.metrics):
        (folder / name).unlink(missing_ok=True)
    with atomic_write(outputs.run) as temporary:
        temporary.write_text(json.dumps(_run(work, result, outputs, made_of), indent=1) + "\n", encoding="utf-8")


def _run(work: Workspace, result: Transferred, outputs: Outputs, made_of: str) -> dict[str, object]:
    """run.json: what made the folder, by what, from what, in which time; and the sizes of our files, no one else's."""
    names = [*_listed_videos(outputs.metrics), *(name for name in result.motion.files if name.startswith("adapter/"))]
    drawn = (outputs.reference, outputs.sheet, outputs.heads, outputs.metrics, outputs.losses, outputs.report)
    files = [*(outputs.folder / name for name in names), *drawn]
    return {
        "made_of": made_of,
        "clip": result.clip.model_dump(mode="json", exclude={"video", "appearance_images"}),
        "video": {"name": result.clip.video.name, "sha256": result.video_digest},
        "backbone": {"id": result.backbone_id, "digest": result.backbone_digest},
        "params": work.params.model_dump(mode="json"),
        "stages": {run.stage: asdict(_timing(run)) for run in result.runs},
        "versions": _versions(),
        "files": {path.relative_to(outputs.folder).as_posix(): path.stat().st_size for path in sorted(files)},
    }


def _sheet(result: Transferred, reference: np.ndarray) -> np.ndarray:
    rows = [(f"Reference: {result.clip.caption}", reference)]
    for one in result.rendered:
        rows.append((one.prompt, read_frames(one.artifact.file("video.mp4"))[0]))
        if one.baseline is not None:
            rows.append((f"Without the adapter: {one.prompt}", read_frames(one.baseline.file("video.mp4"))[0]))
    return contact_sheet(rows)


def _metrics(result: Transferred, outputs: Outputs) -> dict[str, object]:
    rows = []
    for video, rendered, metrics in zip(outputs.videos, result.rendered, result.metrics, strict=True):
        without = {} if rendered.baseline is None else {"without_adapter": without_adapter(video).name}
        rows.append({"video": video.name, **without, **metrics})
    return {"clip": result.clip.clip, "caption": result.clip.caption, "results": rows}


def _listed_videos(metrics: Path) -> set[str]:
    """Names of the videos that a metrics.json lists; none where it is absent or not of our making."""
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        rows = json.loads(metrics.read_text(encoding="utf-8"))["results"]
        names = {row["video"] for row in rows} | {row.get("without_adapter", "") for row in rows}
        return {name for name in names if _VIDEO_NAME.fullmatch(name)}
    return set()


def _report(work: Workspace, result: Transferred, outputs: Outputs) -> Report:
    results = [
        Result(
            prompt=one.prompt,
            seed=one.seed,
            video=video,
            metrics=row["adapter"],
            without_adapter=one.baseline and without_adapter(video),
            metrics_without_adapter=row.get("baseline", {}),
        )
        for one, video, row in zip(result.rendered, outputs.videos, result.metrics, strict=True)
    ]
    return Report(
        clip=result.clip.clip,
        caption=result.clip.caption,
        reference=outputs.reference,
        backbone_id=result.backbone_id,
        backbone_digest=result.backbone_digest,
        results=results,
        head_map=outputs.heads,
        losses={f"{stage} {name}": curve for stage, curves in result.losses.items() for name, curve in curves.items()},
        timings={run.stage: _timing(run) for run in result.runs},
        params=work.params.model_dump(mode="json"),
        versions=_versions(),
    )


def _timing(run: StageRun) -> Timing:
    """A stage from the store shows what it took when it ran, one that ran what it took now."""
    return Timing(sum(artifact.seconds for artifact in run.artifacts) if run.cached else run.seconds, run.cached)


def _versions() -> dict[str, str]:
    return {"effivmt": __version__, **{name: metadata.version(name) for name in PACKAGES}}
