"""The real `dvc repro` in a Git repository over the tiny models: it shares its work with `effivmt run`."""

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from command import effivmt

from effivmt.pipeline.stages import STAGES

ROOT = Path(__file__).parents[2]
CATALOG = """clip,video,caption,prompts
one,samples/a.mp4,a red square on a navy background,a green circle
two,samples/a.mp4,a square,a yellow star
"""
Program = Callable[..., str]


def program(folder: Path, home: Path) -> Program:
    """Runs a program in a folder and returns what it prints; nothing is read or written in the user's own places."""
    kinds = ("SITE_CACHE", "GLOBAL_CONFIG", "SYSTEM_CONFIG")
    environment = os.environ | {f"DVC_{kind}_DIR": str(home / kind) for kind in kinds}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    for role in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{role}_NAME": "tester", f"GIT_{role}_EMAIL": "tester@example.org"}
    environment.pop("EFFIVMT_STORE", None)

    def call(*words: object, **more: str) -> str:
        ended = subprocess.run(
            [str(word) for word in words], cwd=folder, env=environment | more, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    return call


@pytest.fixture(scope="module")
def repository(
    tmp_path_factory: pytest.TempPathFactory,
    project: Path,
    backbone_folder: Path,
    scorer_folder: Path,
    sample_video: Path,
) -> Path:
    """This project's pipeline with the tiny models and two clips, committed; nothing is computed."""
    folder = tmp_path_factory.mktemp("dvc") / "repository"
    (folder / "data" / "samples").mkdir(parents=True)
    (folder / "effivmt").mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "effivmt/versions.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
    shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
    shutil.copytree(backbone_folder, folder / "data" / "wan-tiny")
    shutil.copytree(scorer_folder, folder / "data" / "clip-tiny")
    shutil.copy(sample_video, folder / "data" / "samples" / "a.mp4")
    (folder / "data" / "catalog.csv").write_text(CATALOG, encoding="utf-8")
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    params["seed"] = 0
    params["backbone"]["path"], params["evaluate"]["scorer"] = "data/wan-tiny", "data/clip-tiny"
    params["temporal"] |= {"motion_weight": 1.0, "rope": "aligned"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    call = program(folder, folder.parent)
    call("git", "init", "-q")
    commit(call)
    return folder


@pytest.fixture(scope="module")
def call(repository: Path) -> Program:
    return program(repository, repository.parent)


@pytest.fixture(scope="module")
def reproduced(repository: Path, call: Program) -> str:
    """What the first `dvc repro` says, after `effivmt run` has computed everything."""
    computed = run(repository)
    assert "2 done, 0 hit, 0 failed" in computed
    said = call("dvc", "repro")
    commit(call)
    return said


def commit(call: Program) -> None:
    call("git", "add", "--all")
    call("git", "commit", "-q", "-m", "state")


def run(repository: Path, *more: object) -> str:
    """`effivmt run` in the repository, in this process, without an engine; what it prints."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # as dvc.yaml does
    with contextlib.chdir(repository):
        ended = effivmt("run", "--engine", "local", *more)
    torch.set_num_threads(threads)
    assert ended.code == 0, ended.err
    return ended.out


def ran(said: str) -> list[str]:
    """The stages that DVC ran, by what it says."""
    return [stage for stage in STAGES if f"Running stage '{stage}'" in said]


def outs(repository: Path) -> dict[str, str]:
    """Digest of every out in dvc.lock."""
    lock = yaml.safe_load((repository / "dvc.lock").read_text(encoding="utf-8"))
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}


def set_param(repository: Path, section: str, name: str, value: object) -> None:
    path = repository / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params[section][name] = value
    path.write_text(yaml.safe_dump(params), encoding="utf-8")


def test_repro_reuses_what_a_run_has_computed(repository: Path, reproduced: str) -> None:
    assert ran(reproduced) == list(STAGES)
    assert reproduced.count("0 done, 2 hit, 0 failed") == len(STAGES)
    assert outs(repository).keys() == {f"data/stages/{name}" for name in (*STAGES, "metrics", "summary.json")}


def test_second_repro_has_nothing_to_do(call: Program, reproduced: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = call("dvc", "repro")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ran(said) == [] and "up to date" in said
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 5.0  # seconds of processor time


def test_metrics_and_plots(repository: Path, call: Program, reproduced: str) -> None:
    def show(*files: str) -> dict[str, dict]:
        found = json.loads(call("dvc", "metrics", "show", *files, "--json").splitlines()[-1])[""]["data"]
        return {name: file["data"] for name, file in found.items()}

    every = [f"data/stages/metrics/{name}.json" for name in ("mean", "clips/one", "clips/two")]
    shown = show(*every)
    assert list(shown) == every and {"motion_fidelity", "text_similarity", "without_adapter"} <= shown[every[0]].keys()
    (summary,) = show().values()
    assert summary["text"] == round(shown[every[0]]["text_similarity"], 3) and "motion" in summary
    call("dvc", "plots", "show")
    page = (repository / "dvc_plots" / "index.html").read_text(encoding="utf-8")
    for title in ("Stage 2, appearance", "Stage 3, motion", "Metrics by clip"):
        assert title in page
    assert '"loss": "motion"' in page and '"clip": "all clips"' in page
    assert "DVC_METRIC" not in page  # an anchor that nothing filled


def test_lambda_tunes_the_third_stage_only(repository: Path, call: Program, reproduced: str) -> None:
    before = outs(repository)
    set_param(repository, "temporal", "motion_weight", 0.25)
    run(repository)
    said = call("dvc", "repro")
    assert ran(said) == ["temporal", "render", "evaluate"]
    assert said.count("0 done, 2 hit, 0 failed") == 3
    after = outs(repository)
    assert {name for name in after if after[name] == before[name]} == {
        f"data/stages/{stage}" for stage in ("ingest", "heads", "spatial")
    }
    commit(call)
    show = ("dvc", "exp", "show", "--num", 2, "--only-changed", "--drop", "Created|data/.*")
    table = call(*show, "--no-pager", COLUMNS="80")
    assert "temporal.motion_weight" in table and "…" not in table


def test_push_and_pull_round_trip(repository: Path, call: Program, reproduced: str, tmp_path: Path) -> None:
    call("dvc", "remote", "add", "--local", "--default", "--force", "here", tmp_path / "remote")
    assert "files pushed" in call("dvc", "push")
    call("git", "clone", "-q", repository, tmp_path / "clone")
    clone = program(tmp_path / "clone", tmp_path)
    clone("dvc", "remote", "add", "--local", "--default", "here", tmp_path / "remote")
    clone("dvc", "pull")
    said = clone("dvc", "repro")
    assert ran(said) == [] and "up to date" in said
    adapters = [folder / "data/stages/temporal/one/adapter/adapter.json" for folder in (repository, tmp_path / "clone")]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_repro_in_a_fresh_clone_gives_the_recorded_bytes(
    repository: Path, call: Program, reproduced: str, tmp_path: Path
) -> None:
    call("git", "clone", "-q", repository, tmp_path / "clone")
    clone = program(tmp_path / "clone", tmp_path)
    said = clone("dvc", "repro", "--force")
    # Its own store was empty; both clips are the same file, so the second's ingest is a hit.
    assert said.count("2 done, 0 hit, 0 failed") == len(STAGES) - 1 and said.count("1 done, 1 hit, 0 failed") == 1
    assert outs(tmp_path / "clone") == outs(repository)
    assert clone("git", "status", "--porcelain") == ""
    assert "0 done, 2 hit, 0 failed" in run(tmp_path / "clone")  # and a run reuses what it has computed

    catalog = tmp_path / "clone" / "data" / "catalog.csv"
    catalog.write_text(CATALOG.replace("a square,", "a blue square,"), encoding="utf-8")
    said = clone("dvc", "repro")
    assert ran(said) == list(STAGES) and said.count("one: hit") == len(STAGES)
    assert said.count("1 done, 1 hit, 0 failed") == len(STAGES) - 1  # the clip's file is as it was: ingest is a hit


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_experiments(repository: Path, call: Program, reproduced: str) -> None:
    before = outs(repository)
    said = call("dvc", "exp", "run", "--set-param", "temporal.rope=paper")
    assert ran(said) == ["temporal", "render", "evaluate"] and said.count("2 done, 0 hit, 0 failed") == 3
    assert outs(repository)["data/stages/temporal"] != before["data/stages/temporal"]
    assert "temporal.rope" in call("dvc", "params", "diff")
    store = str(repository / ".effivmt" / "store")
    said = call("dvc", "exp", "run", "--temp", "--set-param", "temporal.rope=none", EFFIVMT_STORE=store)
    assert ran(said) == ["temporal", "render", "evaluate"]
    shown = json.loads(call("dvc", "exp", "show", "--json").splitlines()[-1])
    assert len(shown) > 1
