"""Writes the out folder of a clip where it is not up to date: copies of its artifacts, figures, tables and its page."""

import json
import re
import shutil
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, cast

from effivmt.pipeline.outcomes import StageRun
from effivmt.pipeline.outputs import Outputs, image_name, video_names, without_adapter
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.transfer import MethodFacts, TransferResult
from effivmt.pipeline.workspace import Workspace
from effivmt.report.run_record import CatalogRow, ClipMetrics, ClipRun, ResultRow, StageTiming, named_curves
from effivmt.store import Artifact
from effivmt.store.digests import canonical_json, sha256_bytes
from effivmt.store.disk_errors import write_errors
from effivmt.store.files import atomic_write, copy_verified
from effivmt.versions import __version__

if TYPE_CHECKING:
    import numpy as np

    from effivmt.report.clip_page import Report, Timing

LAYOUT = 6
"""Raised whenever the same results make other files."""
PACKAGES = ("torch", "diffusers", "peft", "transformers")
"""Packages whose versions the report shows, besides our own."""

_IMAGE = "image.png"
"""In the artifact of a video: the image that it begins with."""
_FILES = {"video", "appearance_images", "images"}
"""A clip's files, of which the folder keeps no paths."""
_MADE_NAME = re.compile(r"video-\d+(-seed-?\d+)?(-without-adapter)?\.mp4|image-\d+\.png")


def write_outputs(work: Workspace, result: TransferResult, out: Path) -> Outputs:
    """Brings `out/<clip>/` up to date; removes the videos of an earlier run that this one does not have.

    DamageError where an artifact is damaged; EffiVMTError where the folder cannot be written.
    """
    work = work.for_clip(result.clip)
    folder = out / result.clip.clip
    outputs = Outputs(folder, tuple(folder / name for name in video_names(result.clip.prompts, result.rendered)))
    with write_errors(folder):
        made_of = _made_of(work, result)
        if not outputs.current(made_of):
            _write_files(work, result, outputs, made_of)
    return outputs


def _made_of(work: Workspace, result: TransferResult) -> str:
    """Digest of all that the folder's content depends on, timings apart."""
    artifacts = [[run.stage, *(artifact.content_digest for artifact in run.artifacts)] for run in result.runs]
    clip = result.clip.model_dump(mode="json", exclude=_FILES)
    parts = [__version__, LAYOUT, clip, artifacts, result.backbone, work.params.model_dump(mode="json")]
    parts += [asdict(result.method)] if result.method is not None else []
    return sha256_bytes(canonical_json(parts))


def _write_files(work: Workspace, result: TransferResult, outputs: Outputs, made_of: str) -> None:
    """Writes every file of a clip's out folder; the record, which lists all others, comes last."""
    from effivmt.media.video import write_image, write_video
    from effivmt.report.clip_page import render_report

    folder = outputs.folder
    folder.mkdir(parents=True, exist_ok=True)
    outputs.record.unlink(missing_ok=True)
    earlier = _listed_files(outputs.metrics)
    for target, rendered in zip(outputs.videos, result.rendered, strict=True):
        copy_verified(rendered.artifact, "video.mp4", target)
        if rendered.without_adapter is not None:
            copy_verified(rendered.without_adapter, "video.mp4", without_adapter(target))
        if _IMAGE in rendered.artifact.files:
            copy_verified(rendered.artifact, _IMAGE, folder / image_name(target))
    if result.classified is not None:
        copy_verified(result.classified, "heads.png", outputs.heads)
    if result.motion is not None:
        outputs.adapter.mkdir(exist_ok=True)
        for name in sorted(_in_adapter(result), key=lambda name: name == "adapter/adapter.json"):  # it lists the others
            copy_verified(result.motion, name, folder / name)
    if result.masked is not None:
        copy_verified(result.masked, "mask.mp4", outputs.mask)
    frames = load_tensor(result.ingested, "frames").numpy()
    with atomic_write(outputs.reference) as temporary:
        write_video(temporary, frames, work.params.ingest.fps)
    with atomic_write(outputs.sheet) as temporary:
        write_image(temporary, _sheet(result, frames))
    for path, document in ((outputs.metrics, _metrics(result, outputs)), (outputs.losses, result.losses)):
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with atomic_write(outputs.report) as temporary:
        temporary.write_text(render_report(_report(work, result, outputs)), encoding="utf-8")
    for name in earlier - _listed_files(outputs.metrics):
        (folder / name).unlink(missing_ok=True)
    _remove_what_is_not_there(result, outputs)
    _remove_record_of_0_1(folder)
    with atomic_write(outputs.record) as temporary:
        temporary.write_text(json.dumps(_record(work, result, outputs, made_of), indent=1) + "\n", encoding="utf-8")


def _in_adapter(result: TransferResult) -> list[str]:
    """The files of the adapter folder; none where the method has no adapter."""
    files = {} if result.motion is None else result.motion.files
    return [name for name in files if name.startswith("adapter/")]


def _remove_what_is_not_there(result: TransferResult, outputs: Outputs) -> None:
    """Removes what an earlier run, perhaps by another method, had and this one has not."""
    if result.masked is None:
        outputs.mask.unlink(missing_ok=True)
    if result.classified is None:
        outputs.heads.unlink(missing_ok=True)
    if result.motion is None:
        shutil.rmtree(outputs.adapter, ignore_errors=True)


def _remove_record_of_0_1(folder: Path) -> None:
    """Removes run.json, the name of the record up to version 0.1; one of a catalog run stays."""
    with suppress(FileNotFoundError, ValueError):
        if "made_of" in json.loads((folder / "run.json").read_text(encoding="utf-8")):
            (folder / "run.json").unlink()


def _record(work: Workspace, result: TransferResult, outputs: Outputs, made_of: str) -> ClipRun:
    """The record of the folder: clip, video, backbone, params, timings and versions, and the sizes of our files."""
    names = [*_listed_files(outputs.metrics), *_in_adapter(result)]
    drawn = [outputs.reference, outputs.sheet, outputs.metrics, outputs.losses, outputs.report]
    drawn += [outputs.heads] if result.classified is not None else []
    drawn += [outputs.mask] if result.masked is not None else []
    files = [*(outputs.folder / name for name in names), *drawn]
    timings = {run.stage: _timing(run) for run in result.runs}
    record: ClipRun = {
        "made_of": made_of,
        "clip": cast(CatalogRow, result.clip.model_dump(mode="json", exclude=_FILES)),
        "video": {
            "name": result.clip.video.name,
            "sha256": result.video_digest,
            "excerpt": asdict(result.excerpt),
        },
        "backbone": result.backbone,
        "params": work.params.model_dump(mode="json"),
        "stages": {stage: StageTiming(seconds=it.seconds, cached=it.cached) for stage, it in timings.items()},
        "versions": _versions(),
        "files": {path.relative_to(outputs.folder).as_posix(): path.stat().st_size for path in sorted(files)},
    }
    if (method := result.method) is not None:
        record["method"] = {"name": method.name, "title": method.title, "params": method.params}
    return record


def _sheet(result: TransferResult, reference: "np.ndarray") -> "np.ndarray":
    from effivmt.media.figures import contact_sheet
    from effivmt.media.video import read_frames

    def read(artifact: Artifact) -> "np.ndarray":
        with artifact.opened("video.mp4") as path:
            return read_frames(path)[0]

    without = result.labels[1].replace("adapter", "the adapter")
    rows = [(f"Reference: {result.clip.caption}", reference)]
    for one in result.rendered:
        rows.append((one.prompt or "(of an image)", read(one.artifact)))
        if one.without_adapter is not None:
            rows.append((f"{without}: {one.prompt}", read(one.without_adapter)))
    return contact_sheet(rows)


def _metrics(result: TransferResult, outputs: Outputs) -> ClipMetrics:
    rows: list[ResultRow] = []
    for video, rendered, metrics in zip(outputs.videos, result.rendered, result.metrics, strict=True):
        row: ResultRow = {"video": video.name, **metrics}
        if rendered.without_adapter is not None:
            row = {"video": video.name, "without_adapter": without_adapter(video).name, **metrics}
        if _IMAGE in rendered.artifact.files:
            row["image"] = image_name(video)
        rows.append(row)
    return {"clip": result.clip.clip, "caption": result.clip.caption, "notices": result.notices, "results": rows}


def _listed_files(metrics: Path) -> set[str]:
    """Names of the videos and images that a metrics.json lists; none where it is absent or not ours."""
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        rows = json.loads(metrics.read_text(encoding="utf-8"))["results"]
        names = {row["video"] for row in rows}
        names |= {row.get(kind, "") for row in rows for kind in ("without_adapter", "image")}
        return {name for name in names if _MADE_NAME.fullmatch(name)}
    return set()


def _report(work: Workspace, result: TransferResult, outputs: Outputs) -> "Report":
    from effivmt.report.clip_page import Report, Result

    results = [
        Result(
            prompt=one.prompt,
            seed=one.seed,
            video=video,
            metrics=row["adapter"],
            without_adapter=without_adapter(video) if one.without_adapter else None,
            metrics_without_adapter=row.get("baseline", {}),
            image=video.with_name(image_name(video)) if _IMAGE in one.artifact.files else None,
        )
        for one, video, row in zip(result.rendered, outputs.videos, result.metrics, strict=True)
    ]
    return Report(
        clip=result.clip.clip,
        caption=result.clip.caption,
        excerpt=result.excerpt.describe(),
        notices=result.notices,
        reference=outputs.reference,
        backbone_id=result.backbone["id"],
        backbone_digest=result.backbone["digest"],
        results=results,
        head_map=None if result.classified is None else outputs.heads,
        mask=None if result.masked is None else outputs.mask,
        motion_of=result.clip.motion_of,
        losses=named_curves(result.losses),
        timings={run.stage: _timing(run) for run in result.runs},
        params=work.params.model_dump(mode="json") | _own_params(result.method),
        versions=_versions(),
        method=result.method.title if result.method is not None else "",
        labels=result.labels,
    )


def _own_params(method: MethodFacts | None) -> dict[str, object]:
    """The params of a method's own, under its name."""
    return {method.name: dict(method.params)} if method is not None and method.params else {}


def _timing(run: StageRun) -> "Timing":
    """The seconds of a stage: of its original run where the store had it, else of this run."""
    from effivmt.report.clip_page import Timing

    return Timing(sum(artifact.seconds for artifact in run.artifacts) if run.cached else run.seconds, run.cached)


def _versions() -> dict[str, str]:
    return {"effivmt": __version__, **{name: metadata.version(name) for name in PACKAGES}}
