"""Finished jobs, kept as a JSON file each, so that a long comparison goes on anywhere and measures nothing twice."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from effivmt.benchmark.cells import Cell, Job, JobResult
from effivmt.benchmark.peers import identity
from effivmt.benchmark.settings import Setting, settings_of
from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import EffiVMTError
from effivmt.pipeline.workspace import Workspace
from effivmt.store.digests import sha256_file
from effivmt.store.disk_errors import write_errors
from effivmt.store.files import atomic_write
from effivmt.untrusted import read_json
from effivmt.versions import BENCHMARK_VERSIONS, VERSIONS, git_commit

_BEFORE: Mapping[str, Setting] = {"render.motion_boundary": 0.0}
"""What rows that lack a setting were made with, where its default is another."""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class About(_File):
    """All that a job depends on: digests, texts, settings by `section.key`, and the versions of the stages.

    Rows that were kept before may name the versions of stages that the job does not run; those do not count.
    """

    clip: str
    caption: str
    prompts: list[str]
    backbone: str
    scorer: str | None
    maker: str
    settings: dict[str, Setting]
    versions: dict[str, int]


class KeptCell(_File):
    """The fields of a `Cell`, with the keys of its artifacts alone."""

    prompt: str
    seed: int
    metrics: dict[str, float | None]
    preparing_seconds: float | None
    rendering_seconds: float | None
    processor_seconds: float | None
    peak_bytes: int | None
    adapter_key: str | None
    video_key: str | None


class Kept(_File):
    """What a file holds; commit: of the code that measured it."""

    about: About
    commit: str | None
    cells: list[KeptCell]


@dataclass(frozen=True)
class FinishedJobs:
    """A folder with `<method>/<clip>.json` for every job that ended without an error.

    A job is left out that reads other files: images of the appearance, clips of the heads' scope, a tracker.
    """

    folder: Path

    def find(self, work: Workspace, job: Job) -> JobResult | None:
        """The kept result of a job, without its videos; None where there is none that the job would have today.

        EffiVMTError where the file is no such file.
        """
        if _reads_more(job):
            return None
        path = self._path(job)
        try:
            kept = Kept.model_validate(read_json(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, ValidationError) as error:
            raise EffiVMTError(
                f"{path} is not the file of a finished job: delete it, and the job runs again"
            ) from error
        defaults = {**settings_of(Params(), type(job.peer)() if job.peer else None), **_BEFORE}
        if not _same(kept.about, _about(work, job), defaults=defaults):
            return None
        cells = [Cell(job.method.name, job.clip.clip, **cell.model_dump()) for cell in kept.cells]
        return JobResult(job, tuple(cells), None, cached=True)

    def keep(self, work: Workspace, result: JobResult) -> None:
        """Writes the file of a job unless a cell has no video; EffiVMTError where it cannot be written."""
        if result.errors or result.cannot or _reads_more(result.job):
            return
        cells = [KeptCell(**{name: getattr(cell, name) for name in KeptCell.model_fields}) for cell in result.cells]
        kept = Kept(about=_about(work, result.job), commit=git_commit(), cells=cells)
        path = self._path(result.job)
        with write_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.write_text(json.dumps(kept.model_dump(), ensure_ascii=False) + "\n", encoding="utf-8")

    def _path(self, job: Job) -> Path:
        return self.folder / job.method.name / f"{job.clip.clip}.json"


def _about(work: Workspace, job: Job) -> About:
    scorer = work.scorer.folder
    unused = {"merge"} if job.clip.chosen else {"merge", "mask"}
    return About(
        clip=sha256_file(job.clip.video),
        caption=job.clip.caption,
        prompts=list(job.clip.prompts),
        backbone=work.folder.digest,
        scorer=None if scorer is None else scorer.digest,
        maker=identity(job.method.peer) if job.method.peer else job.method.maker,
        settings=settings_of(job.params, job.peer) | _asked(job.clip),
        versions={name: version for name, version in (VERSIONS | BENCHMARK_VERSIONS).items() if name not in unused},
    )


def _asked(clip: Clip) -> dict[str, Setting]:
    """What else a clip asks for; rows that were kept before clips could choose a motion or have images lack those."""
    asked: dict[str, Setting] = {"clip.start": clip.start, "clip.end": clip.end, "clip.seed": clip.seed}
    if clip.chosen:
        asked |= {"clip.motion_of": clip.motion_of, "clip.region": None if clip.region is None else list(clip.region)}
    if clip.images:
        asked["clip.images"] = [sha256_file(image) for image in clip.images]
    return asked


def _reads_more(job: Job) -> bool:
    params = job.params
    return bool(job.clip.appearance_images or params.heads.scope_clips or params.evaluate.cotracker)


def _same(kept: About, now: About, *, defaults: Mapping[str, Setting]) -> bool:
    """Whether a job found today what was kept; a setting that one of them lacks must have its default in the other."""
    facts = {"settings", "versions"}
    if kept.model_dump(exclude=facts) != now.model_dump(exclude=facts):
        return False
    if any(now.versions.get(stage, version) != version for stage, version in kept.versions.items()):
        return False
    names = {*kept.settings, *now.settings}
    found, asked = ([it.settings.get(name, defaults.get(name)) for name in names] for it in (kept, now))
    return found == asked
