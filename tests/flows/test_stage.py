"""`effivmt stage` as a user calls it: exit codes, what it prints, and no engine."""

import subprocess
import sys
from pathlib import Path

import pytest
from command import CAPTION, PROMPTS, Ended, effivmt

HEAVY = {"prefect", "mlflow", "dvc", "torch", "diffusers", "transformers"}


@pytest.fixture
def catalog(tmp_path: Path, sample_video: Path) -> Path:
    """The clip of the first transfer, and one that is missing."""
    (tmp_path / "a.mp4").write_bytes(sample_video.read_bytes())
    rows = f"good,a.mp4,{CAPTION},{' | '.join(PROMPTS)}\nlost,b.mp4,{CAPTION},{PROMPTS[0]}\n"
    (tmp_path / "c.csv").write_text("clip,video,caption,prompts\n" + rows, encoding="utf-8")
    return tmp_path / "c.csv"


def words(project: Path, catalog: Path, name: str) -> list[str]:
    places = ("--params", project / "params.yaml", "--store", project / "store", "--out", catalog.parent / "out")
    return [str(word) for word in ("stage", name, catalog, *places)]


def test_what_a_transfer_has_computed_is_a_hit(project: Path, transferred: Ended, catalog: Path) -> None:
    ended = effivmt(*words(project, catalog, "render"))
    assert ended.code == 1  # a clip failed, and stopped no other
    assert "[1/2] good: hit" in ended.err and "[2/2] lost: failed" in ended.err and "does not exist" in ended.err
    assert "0 done, 1 hit, 1 failed" in ended.out and "report.html" not in ended.out
    out = catalog.parent / "out" / "render"
    assert (out / "good" / "video-2.mp4").read_bytes() == (project / "out" / "zigzag" / "video-2.mp4").read_bytes()
    assert not (out / "lost").exists()

    lost = catalog.read_text(encoding="utf-8").replace("b.mp4", "a.mp4")
    catalog.write_text(lost, encoding="utf-8")
    ended = effivmt(*words(project, catalog, "render"), "--quiet")
    assert (ended.code, ended.out, ended.err) == (0, f"{out}\n", "")
    assert (out / "lost" / "video-1.mp4").read_bytes() == (out / "good" / "video-1.mp4").read_bytes()


def test_hits_need_no_engine(project: Path, transferred: Ended, catalog: Path) -> None:
    command = words(project, catalog, "evaluate")
    script = f"import sys; from effivmt_flows.cli.main import main; main({command!r}); print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "good: hit" in ended.stderr
    assert not HEAVY & set(ended.stdout.splitlines()[-1].split())


def test_wrong_use_exits_2(project: Path, catalog: Path) -> None:
    ended = effivmt(*words(project, catalog, "dinner"))
    assert ended.code == 2 and "NAME is 'dinner'; expected one of ingest, heads" in ended.err
    ended = effivmt(*words(project, catalog.with_name("none.csv"), "heads"))
    assert ended.code == 2 and "none.csv cannot be read" in ended.err and ended.err.count("\n") == 1
