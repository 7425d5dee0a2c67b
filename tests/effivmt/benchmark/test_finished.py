"""Kept rows of a comparison stand for jobs that are the same today, and for no others."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from effivmt.benchmark import runner
from effivmt.benchmark.cells import Job
from effivmt.benchmark.delivery import write_comparison
from effivmt.benchmark.finished import FinishedJobs
from effivmt.benchmark.methods import METHODS, OURS
from effivmt.benchmark.results import RunInfo
from effivmt.config import HeadsParams, Params, RenderParams
from effivmt.errors import EffiVMTError
from effivmt.params_file import set_value
from effivmt.pipeline.workspace import LoadedBackbone, Workspace
from effivmt.store.store import Store
from effivmt.versions import VERSIONS

ABOUT = RunInfo("tiny", "wan-random", "0" * 64, "0.1.0", "abc123", 1, {"seed": 0})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def job(params, clip) -> Job:
    tree = params.model_dump()
    for override in ("ingest.num_frames=9", "sampling.frames=5", "spatial.steps=2", "temporal.steps=2"):
        set_value(tree, override)
    set_value(tree, "render.baseline=false")
    return Job(METHODS[OURS], Params.model_validate(tree), clip.model_copy(update={"prompts": clip.prompts[:1]}))


@pytest.fixture
def work(folder, job, backbone) -> Workspace:
    return Workspace(
        Store(folder / "store"), job.params, loaded=LoadedBackbone(folder=backbone.found, backbone=backbone)
    )


@pytest.fixture
def ended(folder, job, monkeypatch, backbone) -> Path:
    """The folder of finished jobs after a run of the job."""
    monkeypatch.setattr(runner, "LoadedBackbone", lambda: LoadedBackbone(folder=backbone.found, backbone=backbone))
    runner.run(Store(folder / "store"), [job], 1, lambda _: None, finished=FinishedJobs(folder / "rows"))
    return folder / "rows"


def test_a_kept_job_has_the_same_row_and_runs_no_stage(folder, job, work, ended, monkeypatch, tmp_path) -> None:
    (first,) = runner.run(Store(folder / "store"), [job], 1, lambda _: None)
    monkeypatch.setattr(runner, "LoadedBackbone", lambda: work.loaded)
    (again,) = runner.run(Store(tmp_path / "empty"), [job], 1, lambda _: None, finished=FinishedJobs(ended))
    assert again.cached and not (tmp_path / "empty" / "render").exists()
    assert again.cells == tuple(replace(cell, video=None) for cell in first.cells)
    summary = write_comparison(tmp_path / "out", ABOUT, [job.method], results=[again])
    assert summary["methods"][OURS]["estimates"] and not summary["failures"]
    assert "whose video is not here" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    ["render.steps=3", "seed=5", "spatial.rank=3", "backbone.attention=flash", "backbone.compile=true"],
)
def test_another_setting_is_another_job(job, work, ended, change) -> None:
    tree = job.params.model_dump()
    set_value(tree, change)
    assert FinishedJobs(ended).find(work, job) is not None
    assert FinishedJobs(ended).find(work, replace(job, params=Params.model_validate(tree))) is None


def test_a_setting_that_is_kept_alone_must_have_its_default(job, work, ended) -> None:
    """Params that came later are in what was kept where they were set, and in no dump of a job that leaves them out."""
    (path,) = ended.glob("*/*.json")
    text = path.read_text(encoding="utf-8")
    kept = json.loads(text)
    kept["about"]["settings"]["temporal.max_grad_norm"] = 1.0
    clipped = job.params.temporal.model_copy(update={"max_grad_norm": 1.0})
    try:
        path.write_text(json.dumps(kept), encoding="utf-8")
        assert FinishedJobs(ended).find(work, job) is None
        asked = replace(job, params=job.params.model_copy(update={"temporal": clipped}))
        assert FinishedJobs(ended).find(work, asked) is not None
    finally:
        path.write_text(text, encoding="utf-8")


def test_so_is_another_clip_prompt_backbone_or_stage(job, work, ended, monkeypatch, tmp_path) -> None:
    finished = FinishedJobs(ended)
    other = tmp_path / "other.mp4"
    other.write_bytes(job.clip.video.read_bytes() + b"0")
    for changed in ({"video": other}, {"prompts": ("another",)}, {"caption": "another"}, {"start": 0.25}):
        assert finished.find(work, replace(job, clip=job.clip.model_copy(update=changed))) is None
    found = replace(work.loaded.folder, digest="1" * 64)
    assert finished.find(replace(work, loaded=LoadedBackbone(found, scorers=work.loaded.scorers)), job) is None
    chosen = replace(job, clip=job.clip.model_copy(update={"motion_of": "object"}))
    (ended_job,) = runner.run(Store(ended.parent / "store"), [job], 1, lambda _: None)
    finished.keep(work, replace(ended_job, job=chosen))
    assert finished.find(work, chosen) is not None
    monkeypatch.setitem(VERSIONS, "mask", VERSIONS["mask"] + 1)
    assert finished.find(work, chosen) is None
    finished.keep(work, replace(ended_job, job=job))
    monkeypatch.setitem(VERSIONS, "mask", VERSIONS["mask"] + 1)  # no stage of this job
    assert finished.find(work, job) is not None
    monkeypatch.setitem(VERSIONS, "render", VERSIONS["render"] + 1)
    assert finished.find(work, job) is None


@pytest.mark.parametrize(
    ("setting", "before", "other"),
    [
        ("heads.alpha", HeadsParams().alpha, 77.0),
        ("render.motion_boundary", 0.0, RenderParams().motion_boundary),  # rows that lack it are of every step
    ],
)
def test_a_setting_that_came_later_must_be_as_it_was_before(job, work, ended, setting, before, other) -> None:
    (path,) = ended.glob("*/*.json")
    text = path.read_text(encoding="utf-8")
    kept = json.loads(text)
    del kept["about"]["settings"][setting]
    try:
        path.write_text(json.dumps(kept), encoding="utf-8")
        for value, found in ((before, True), (other, False)):
            tree = job.params.model_dump()
            set_value(tree, f"{setting}={value}")
            asked = replace(job, params=Params.model_validate(tree))
            assert (FinishedJobs(ended).find(work, asked) is not None) is found
    finally:
        path.write_text(text, encoding="utf-8")


def test_a_failed_job_is_not_kept(folder, job, monkeypatch, tmp_path, backbone) -> None:
    monkeypatch.setattr(runner, "LoadedBackbone", lambda: LoadedBackbone(folder=backbone.found, backbone=backbone))
    lost = replace(job, clip=job.clip.model_copy(update={"video": tmp_path / "gone.mp4"}))
    lost.clip.video.write_bytes(b"no video")
    finished = FinishedJobs(tmp_path / "rows")
    lost = replace(lost, method=METHODS["fast"])
    (result,) = runner.run(Store(tmp_path / "store"), [lost], 1, lambda _: None, finished=finished)
    assert result.errors and not (tmp_path / "rows").exists()


def test_a_file_that_is_none_is_named(job, work, ended) -> None:
    (path,) = ended.glob("*/*.json")
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(text[: len(text) // 2], encoding="utf-8")
        with pytest.raises(EffiVMTError, match=r"effivmt.*zigzag\.json is not the file of a finished job: delete it"):
            FinishedJobs(ended).find(work, job)
    finally:
        path.write_text(text, encoding="utf-8")
