"""`effivmt pretrain transfer` reads paths, colours and shapes out of what a backbone makes of a catalog."""

import json
from pathlib import Path

import pytest
from command import effivmt

HEADER = "clip,video,caption,prompts,class\n"


def test_transfer_judges_the_clips_of_one_object(
    project: Path, sample_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "a.mp4").write_bytes(sample_video.read_bytes())
    rows = "{name},a.mp4,a red square on a navy background,a green circle | a yellow star,{group}\n"
    catalog = tmp_path / "catalog.csv"
    catalog.write_text(
        HEADER + rows.format(name="one", group="single object") + rows.format(name="two", group="camera motion"),
        encoding="utf-8",
    )
    size = ["--set", "ingest.height=64", "--set", "ingest.width=64"]
    arguments = ["--params", project / "params.yaml", "--store", tmp_path / "store", "--catalog", catalog, *size]
    judged = effivmt("pretrain", "transfer", *map(str, arguments))
    assert judged.code == 0, judged.err
    lines = [line for line in judged.out.splitlines() if "one" in line or "2 videos" in line]
    assert len(lines) == 3 and "two" not in judged.out.split("rms error")[1]


@pytest.mark.slow
def test_parts_judges_one_motion_of_two_and_two_together(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    size = ["--set", "ingest.height=64", "--set", "ingest.width=64", "--set", "render.baseline=false"]
    places = ["--params", project / "params.yaml", "--store", tmp_path / "store", "--work", tmp_path / "work"]
    judged = effivmt("pretrain", "parts", *map(str, places), *size)
    assert judged.code == 0, judged.err
    single, joint = judged.out.split("the motions of two clips together")
    assert "10 videos" in single and "4 videos" in joint
    assert [joint.count(f"camera{kind} + pair, upper") for kind in ("", ", near")] == [2, 2]
    keys = [json.loads(path.read_text())["key"] for path in (tmp_path / "store" / "render").glob("*/artifact.json")]
    assert sum("regional" in key["params"] for key in keys) == 4


def test_an_unknown_step_is_told(project: Path) -> None:
    wrong = effivmt("pretrain", "nothing", "--params", str(project / "params.yaml"))
    assert wrong.code == 2 and "transfer" in wrong.err and "'nothing'" in wrong.err


def test_an_unknown_plan_and_an_unknown_device_are_told(project: Path) -> None:
    for option, given, expected in (("--plan", "huge", "processor, gpu"), ("--device", "abacus", "auto, cpu, cuda")):
        wrong = effivmt("pretrain", "assemble", "--params", str(project / "params.yaml"), option, given)
        assert wrong.code == 2 and expected in wrong.err and given in wrong.err and option in wrong.err


def test_a_start_is_for_steps_that_train_further(project: Path, tmp_path: Path) -> None:
    more = ["--params", str(project / "params.yaml"), "--work", str(tmp_path), "--start"]
    for step in ("latents", "assemble"):
        wrong = effivmt("pretrain", step, *more, "data/wan-tiny")
        assert wrong.code == 2 and "autoencoder, transformer, scorer" in wrong.err and step in wrong.err
    for step, kind in (("autoencoder", "WanPipeline"), ("scorer", "CLIPModel")):
        missing = effivmt("pretrain", step, *more, str(tmp_path / "nothing"))
        assert missing.code == 1 and f"no {kind} folder" in missing.err
