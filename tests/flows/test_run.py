"""`effivmt run` as a user calls it: exit codes, tables, plans, and the Prefect engine."""

import shutil
from pathlib import Path

import pytest
from command import Ended, effivmt


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, sample_video: Path) -> Path:
    """A good clip and one that is missing."""
    folder = tmp_path_factory.mktemp("catalog")
    (folder / "a.mp4").write_bytes(sample_video.read_bytes())
    rows = "good,a.mp4,a red square,a green circle\nlost,b.mp4,a red square,a <b>star</b>\n"
    (folder / "c.csv").write_text("clip,video,caption,prompts\n" + rows, encoding="utf-8")
    return folder / "c.csv"


def run(project: Path, catalog: Path, *more: object) -> Ended:
    """The command with the tiny models, everything it writes beside the catalog."""
    places = ("--params", project / "params.yaml", "--store", catalog.parent / "store", "--out", catalog.parent / "out")
    return effivmt("run", catalog, *places, *more)


def test_failures_are_told_and_retried(project: Path, catalog: Path) -> None:
    planned = run(project, catalog, "--dry-run")
    assert planned.code == 0 and "good: ingest: never computed" in planned.out and "lost: ingest: video" in planned.out
    assert not (catalog.parent / "out").exists()

    first = run(project, catalog, "--engine", "local")
    assert first.code == 1 and "1 done, 0 hit, 1 failed" in first.out and "does not exist" in first.err
    assert "[1/2] good: done" in first.err and "[2/2] lost: failed" in first.err

    retried = run(project, catalog, "--engine", "local", "--retry-failed")
    assert retried.code == 1 and "0 done, 0 hit, 1 failed" in retried.out and "good" not in retried.err

    only = run(project, catalog, "--engine", "local", "--only", "good")
    assert only.code == 0 and "0 done, 1 hit, 0 failed" in only.out
    assert "lost" not in only.err + only.out


def test_wrong_use_exits_2(project: Path, catalog: Path) -> None:
    wrong = catalog.parent / "wrong.csv"
    wrong.write_text("clip,video,caption,prompts\na b,../x.mp4,,c\n", encoding="utf-8")
    for ended, told in (
        (effivmt("run", wrong, "--params", project / "params.yaml"), "row 1, column video: '../x.mp4' leaves"),
        (run(project, catalog, "--only", "nobody"), "no such clip"),
        (run(project, catalog, "--force", "dinner"), "there is no such stage"),
    ):
        assert ended.code == 2 and told in ended.err


def test_prefect_runs_the_same(project: Path, catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(catalog.parent)  # mlflow.db
    ended = run(project, catalog, "--only", "good", "--force", "render")
    assert ended.code == 0, ended.err
    assert "1 done, 0 hit, 0 failed" in ended.out and "[1/1] good: done" in ended.err
    again = run(project, catalog, "--only", "good")
    assert again.code == 0 and "0 done, 1 hit, 0 failed" in again.out


def test_prefect_makes_damage_good(project: Path, catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan of the clip meets one, and a task of Prefect's the other."""
    monkeypatch.chdir(catalog.parent)
    assert run(project, catalog, "--engine", "local", "--only", "good").code == 0
    before = {path: path.read_bytes() for path in (catalog.parent / "out/good").rglob("*.safetensors")}
    for name in ("temporal/*/adapter/temporal.safetensors", "ingest/*/frames.safetensors"):
        (path,) = (catalog.parent / "store").glob(name)
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for folder in (catalog.parent / "store" / "evaluate").iterdir():
        shutil.rmtree(folder)
    ended = run(project, catalog, "--only", "good")
    assert ended.code == 0 and "1 done, 0 hit, 0 failed" in ended.out
    told = [line.split("/")[-1].split(" ")[0] for line in ended.err.splitlines() if "it is dropped" in line]
    assert told == ["temporal.safetensors", "frames.safetensors"]
    assert {path: path.read_bytes() for path in before} == before
