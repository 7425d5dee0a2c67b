"""The out folder of a clip: what a user takes away, copied and drawn from the artifacts in the store.

Every file appears whole or not at all, and one that is right already stays untouched.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from effivmt import __version__
from effivmt.errors import EffiVMTError
from effivmt.figures import contact_sheet
from effivmt.report import Report, Result, Timing, render_report
from effivmt.stages import Workspace
from effivmt.store import Artifact, Store, sha256_file
from effivmt.transfer import StageRun, Transferred
from effivmt.video import read_frames, write_image, write_video

PACKAGES = ("torch", "diffusers", "peft", "transformers")
"""Whose versions the report names, besides our own."""

_VIDEO_NAME = re.compile(r"video-\d+(-seed-?\d+)?\.mp4")


@dataclass(frozen=True)
class Outputs:
    """Where the files of a clip lie; `videos` in the order of the metrics, one for each prompt and seed."""

    folder: Path
    videos: tuple[Path, ...]

    @property
    def reference(self) -> Path:
        """The clip as the stages saw it, an mp4."""
        return self.folder / "reference.mp4"

    @property
    def sheet(self) -> Path:
        """Frames of the reference and of every video with and without the adapter, a PNG."""
        return self.folder / "sheet.png"

    @property
    def heads(self) -> Path:
        """The head map, a PNG."""
        return self.folder / "heads.png"

    @property
    def adapter(self) -> Path:
        """The adapter folder."""
        return self.folder / "adapter"

    @property
    def metrics(self) -> Path:
        """Metrics of every video, JSON: {clip, caption, results: [{video, prompt, seed, adapter, baseline}]}."""
        return self.folder / "metrics.json"

    @property
    def report(self) -> Path:
        """The page that shows all of it, one HTML file."""
        return self.folder / "report.html"


def write_outputs(work: Workspace, result: Transferred, out: Path) -> Outputs:
    """Brings `out/<clip>/` up to date; videos that an earlier run left there and this one does not have go.

    Raises StoreError where an artifact is damaged, EffiVMTError where the folder cannot be written.
    """
    folder = out / result.clip.clip
    names = video_names(result, len(work.params.render.seeds))
    outputs = Outputs(folder, tuple(folder / name for name in names))
    with _writing(folder):
        outputs.adapter.mkdir(parents=True, exist_ok=True)
        earlier = _listed_videos(outputs.metrics)
        for target, rendered in zip(outputs.videos, result.rendered, strict=True):
            _copy(work.store, rendered.artifact, "video.mp4", target)
        _copy(work.store, result.classified, "heads.png", outputs.heads)
        in_adapter = [name for name in result.motion.files if name.startswith("adapter/")]
        for name in sorted(
            in_adapter, key=lambda name: name == "adapter/adapter.json"
        ):  # last: it vouches for the rest
            _copy(work.store, result.motion, name, folder / name)
        frames = load_file(result.ingested.file("frames.safetensors"))["frames"].numpy()
        with _replacing(outputs.reference) as temporary:
            write_video(temporary, frames, work.params.ingest.fps)
        with _replacing(outputs.sheet) as temporary:
            write_image(temporary, _sheet(result, frames))
        with _replacing(outputs.metrics) as temporary:
            temporary.write_text(_metrics(result, names), encoding="utf-8")
        with _replacing(outputs.report) as temporary:
            temporary.write_text(render_report(_report(work, result, outputs)), encoding="utf-8")
        for name in earlier - set(names):
            (folder / name).unlink(missing_ok=True)
    return outputs


def video_names(result: Transferred, seeds: int) -> list[str]:
    """File names by prompt number, from 1, and with several seeds by seed: `video-1.mp4`, `video-1-seed7.mp4`."""
    numbers = {prompt: number for number, prompt in enumerate(result.clip.prompts, 1)}
    return [f"video-{numbers[one.prompt]}{f'-seed{one.seed}' if seeds > 1 else ''}.mp4" for one in result.rendered]


def copy_file(store: Store, artifact: Artifact, name: str, target: Path) -> None:
    """Brings one file of an artifact to `target`, whole or not at all; raises as `write_outputs` does."""
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(store, artifact, name, target)


def _copy(store: Store, artifact: Artifact, name: str, target: Path) -> None:
    """Copies a listed file unless the target has its digest; StoreError when the copy has not."""
    digest = artifact.digest(name)
    if target.is_file() and sha256_file(target) == digest:
        return
    with _replacing(target) as temporary:
        shutil.copyfile(artifact.file(name), temporary)
        if sha256_file(temporary) != digest:
            store.verify(artifact)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EffiVMTError(f"{place} cannot be written ({error}); choose another place with --out") from error


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to; a different file replaces `path`, an equal one or a failed one goes."""
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield temporary
        if not (path.is_file() and sha256_file(path) == sha256_file(temporary)):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sheet(result: Transferred, reference: np.ndarray) -> np.ndarray:
    rows = [(f"Reference: {result.clip.caption}", reference)]
    for one in result.rendered:
        rows.append((one.prompt, read_frames(one.artifact.file("video.mp4"))[0]))
        if one.baseline is not None:
            rows.append((f"Without the adapter: {one.prompt}", read_frames(one.baseline.file("video.mp4"))[0]))
    return contact_sheet(rows)


def _metrics(result: Transferred, names: list[str]) -> str:
    rows = [{"video": name, **row} for name, row in zip(names, result.metrics, strict=True)]
    document = {"clip": result.clip.clip, "caption": result.clip.caption, "results": rows}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _listed_videos(metrics: Path) -> set[str]:
    """Names of the videos that an earlier metrics.json lists; none where it is absent or not of our making."""
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        names = [row["video"] for row in json.loads(metrics.read_text(encoding="utf-8"))["results"]]
        return {name for name in names if _VIDEO_NAME.fullmatch(name)}
    return set()


def _report(work: Workspace, result: Transferred, outputs: Outputs) -> Report:
    results = [
        Result(
            prompt=one.prompt,
            seed=one.seed,
            video=video,
            metrics=row["adapter"],
            without_adapter=one.baseline and one.baseline.file("video.mp4"),
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
        versions={"effivmt": __version__, **{name: metadata.version(name) for name in PACKAGES}},
    )


def _timing(run: StageRun) -> Timing:
    """A stage from the store shows what it took when it ran, one that ran what it took now."""
    return Timing(sum(artifact.seconds for artifact in run.artifacts) if run.cached else run.seconds, run.cached)
