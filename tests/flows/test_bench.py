"""`effivmt bench` as a user calls it: names, exit codes, what it prints and leaves."""

import json
import re
from pathlib import Path

import pytest
from command import CAPTION, PROMPTS, Ended, effivmt


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, sample_video: Path) -> Path:
    """A catalog of the clip of the first transfer, and one that is missing, of another class."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "a.mp4").write_bytes(sample_video.read_bytes())
    rows = f"good,a.mp4,{CAPTION},{' | '.join(PROMPTS)},plain\nlost,b.mp4,{CAPTION},{PROMPTS[0]},odd\n"
    (folder / "c.csv").write_text("clip,video,caption,prompts,class\n" + rows, encoding="utf-8")
    return folder / "c.csv"


def bench(project: Path, suite: Path, *more: object) -> Ended:
    places = ("--suite", suite, "--params", project / "params.yaml", "--store", project / "store")
    return effivmt("bench", *places, "--out", suite.parent / "out", *more)


def test_one_clip_that_a_transfer_has_computed(project: Path, transferred: Ended, suite: Path) -> None:
    ended = bench(project, suite, "--method", "backbone", "--clips", 1, "--prompts", 1)
    assert ended.code == 0, ended.err
    out = suite.parent / "out"
    first, last = ended.err.splitlines()[-2:]
    assert re.fullmatch(r"\[1/2\] effivmt: good: done; about \d+:\d\d:\d\d left", first), first
    assert last == "[2/2] backbone: good: done"
    assert "EffiVMT" in ended.out and "fidelity" in ended.out and str(out / "index.html") in ended.out
    summary = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert (summary["suite"], summary["clips"], summary["prompts"]) == ("c", 1, 1)
    video = out / "videos" / "good" / "effivmt-1.mp4"  # tuned and rendered by the transfer before
    assert video.read_bytes() == (project / "out" / "zigzag" / "video-1.mp4").read_bytes()
    again = bench(project, suite, "--method", "backbone", "--clips", 1, "--prompts", 1, "--quiet")
    assert (again.code, again.out, again.err) == (0, f"{out}\n", "")
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == summary


@pytest.mark.slow
def test_a_method_and_a_variant_of_ones_own(project: Path, transferred: Ended, suite: Path) -> None:
    """The method is the documentation's example, word for word; its params reach a process of their own."""
    text = (Path(__file__).parents[2] / "docs" / "benchmark.md").read_text(encoding="utf-8")
    (suite.parent / "my_method.py").write_text(re.search(r"```python\n(.*?)```", text, re.S)[1], encoding="utf-8")
    asked = ("--method", suite.parent / "my_method.py", "--set", "my_method.weight=0.5")
    asked += ("--variant", "short:render.steps=1", "--only", "good", "--prompts", 1)
    ended = bench(project, suite, *asked, "--workers", 2)
    assert ended.code == 0 and "my-method: good: done" in ended.err and "short: good: done" in ended.err, ended.err
    summary = json.loads((suite.parent / "out" / "results.json").read_text(encoding="utf-8"))
    assert [(name, method["kind"]) for name, method in summary["methods"].items()] == [
        ("effivmt", "method"),
        ("my-method", "method"),
        ("short", "variant"),
    ]
    assert "## Variants" in (suite.parent / "out" / "results.md").read_text(encoding="utf-8")
    videos = [(suite.parent / "out/videos/good" / f"{name}-1.mp4").read_bytes() for name in summary["methods"]]
    assert len(set(videos)) == 3


def test_a_clip_that_fails_stops_no_other(project: Path, transferred: Ended, suite: Path) -> None:
    (suite.parent / "peers.yaml").write_text("smm: {adam_steps: 1, guided_share: 0.5}\n", encoding="utf-8")
    ended = bench(project, suite, "--method", "smm")
    assert ended.code == 1
    assert "smm: lost: failed" in ended.err and "b.mp4 does not exist" in ended.err and "smm: good: done" in ended.err
    assert "2 cells failed" in ended.out
    tables = (suite.parent / "out" / "results.md").read_text(encoding="utf-8")
    assert "SMM (1 of 3 cells failed)" in tables and "## Failed" in tables


def test_what_a_method_cannot_make_is_no_failure(project: Path, transferred: Ended, suite: Path) -> None:
    parts = suite.parent / "parts.csv"
    row = f"good,a.mp4,{CAPTION},{PROMPTS[0]},part,object\n"
    parts.write_text("clip,video,caption,prompts,class,motion_of\n" + row, encoding="utf-8")
    ended = bench(project, parts, "--method", "smm")
    assert ended.code == 0, ended.err
    assert "smm: good: cannot: SMM transfers whole motions" in ended.err and "effivmt: good: done" in ended.err
    assert "1 cells cannot be made by their method" in ended.out


def test_the_list_has_every_name(project: Path) -> None:
    ended = effivmt("bench", "--list")
    assert ended.code == 0
    lines = {line.split()[1]: line for line in ended.out.splitlines()}
    assert lines["effivmt"].startswith("method") and "temporal.rope=none" in lines["pixel-none"]
    assert {"backbone", "ditflow", "two-stage", "clip-lora", "random-split", "rank-4"} <= set(lines)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--method", "fly"), "--method fly: there is no such name; expected one of all, effivmt"),
        (("--ablation", "fly"), "expected one of all, ablation, control, sweep, without-decoupling"),
        (("--suite", "maxi"), "--suite maxi: there is no such suite; expected mini, quick, extra or a catalog file"),
        (("--set", "temporal.wings=2"), "temporal.wings"),
        (("--method", "smm", "--set", "smm.wings=2"), "smm.wings"),
        (("--clips", "0"), "--clips"),
        (("--only", "best"), "--only best"),
        (("--peers", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_what_is_wrong_is_named(project: Path, suite: Path, more: tuple[str, ...], named: str) -> None:
    ended = bench(project, suite, *more)
    assert ended.code == 2 and ended.out == ""
    assert named in ended.err


def test_a_search_writes_what_the_next_comparison_takes(
    project: Path, transferred: Ended, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from effivmt.benchmark import search

    tried = {"smm": ({"adam_steps": 1, "guided_share": 0.5}, {"adam_steps": 2, "guided_share": 0.5})}
    monkeypatch.setattr(search, "CANDIDATES", tried)
    peers = suite.parent / "chosen.yaml"
    ended = bench(project, suite, "--search", "--only", "good", "--prompts", 1, "--peers", peers)
    assert ended.code == 0, ended.err
    assert ended.out.count("smm") == 2 and ended.out.count("chosen ") == 1 and ended.out.splitlines()[-1] == str(peers)
    text = peers.read_text(encoding="utf-8")
    assert text.startswith("# Chosen on good (prompts: 1) with ") and text.count("(chosen)") == 1
    ended = bench(project, suite, "--method", "smm", "--clips", 1, "--prompts", 1, "--peers", peers)
    assert ended.code == 0 and "[2/2] smm: good: hit" in ended.err
