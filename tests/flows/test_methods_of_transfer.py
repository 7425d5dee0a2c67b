"""`--method`: other methods end with the same files, and say which they are; the default stays as it was."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command import PROMPTS, Ended, effivmt

from effivmt.benchmark.method_transfer import NAMES
from effivmt.media.video import read_frames
from effivmt.method.adapter import load_adapter

Arguments = Callable[..., list[str]]
OWN = '''"""Renders the prompt without guidance."""

from effivmt.config import Section
from effivmt.method import guided


class MethodParams(Section):
    guided_share: float = 0.5


def generate(request, params):
    return guided.generate(request, lambda latents, step: latents + params.guided_share, params.guided_share)
'''


def by(arguments: Arguments, out: Path, method: object, *more: object) -> Ended:
    return effivmt(*arguments("--method", method, "--out", out, *more, prompts=PROMPTS[:1]))


def record_of(out: Path) -> dict:
    return json.loads((out / "zigzag" / "transfer.json").read_text(encoding="utf-8"))


def test_a_method_without_tuning_replaces_the_results_of_effivmt(
    transferred: Ended, transfer_arguments: Arguments, tmp_path: Path
) -> None:
    assert effivmt(*transfer_arguments("--out", tmp_path, prompts=PROMPTS[:1])).code == 0
    plain = (tmp_path / "zigzag" / "video-1-without-adapter.mp4").read_bytes()
    assert "method" not in record_of(tmp_path)
    ended = by(transfer_arguments, tmp_path, "flow-motion", "--set", "flow_motion.adam_steps=1")
    assert ended.code == 0, ended.err
    assert "peer_render" in ended.out and "none: this method tunes nothing" in ended.out and "FlowMotion" in ended.out
    names = {path.name for path in (tmp_path / "zigzag").iterdir()}
    assert {"video-1.mp4", "metrics.json", "report.html", "sheet.png"} <= names
    assert not {"adapter", "heads.png"} & names
    assert (tmp_path / "zigzag" / "video-1-without-adapter.mp4").read_bytes() == plain
    method = record_of(tmp_path)["method"]
    assert (method["name"], method["params"]["adam_steps"]) == ("flow-motion", 1)
    page = (tmp_path / "zigzag" / "report.html").read_text(encoding="utf-8")
    assert "<dt>Method</dt><dd>FlowMotion</dd>" in page and "Backbone alone" in page and "With adapter" not in page
    again = by(transfer_arguments, tmp_path, "flow-motion", "--set", "flow_motion.adam_steps=1")
    assert again.code == 0 and "done" not in again.err


def test_a_method_that_tunes_leaves_an_adapter(
    transferred: Ended, transfer_arguments: Arguments, tmp_path: Path
) -> None:
    more = ("--set", "motion_director.steps=2", "--set", "motion_director.rank=2")
    ended = by(transfer_arguments, tmp_path, "motion-director", *more)
    assert ended.code == 0, ended.err
    adapter = load_adapter(tmp_path / "zigzag" / "adapter")
    assert adapter.facts["params"]["peer"] == "motion_director" and adapter.facts["params"]["steps"] == 2
    assert record_of(tmp_path)["params"]["render"]["appearance_strength"] == 0
    assert str(tmp_path / "zigzag" / "adapter") in ended.out
    page = (tmp_path / "zigzag" / "report.html").read_text(encoding="utf-8")
    assert "<dd>MotionDirector</dd>" in page and "With adapter" in page and "Head map" not in page


def test_a_variant_and_a_file_of_ones_own(transferred: Ended, transfer_arguments: Arguments, tmp_path: Path) -> None:
    (tmp_path / "my_method.py").write_text(OWN, encoding="utf-8")
    ended = by(transfer_arguments, tmp_path / "own", tmp_path / "my_method.py", "--set", "my_method.guided_share=1")
    assert ended.code == 0, ended.err
    assert record_of(tmp_path / "own")["method"] == {
        "name": "my-method", "title": "my_method", "params": {"guided_share": 1.0}
    }  # fmt: skip
    assert by(transfer_arguments, tmp_path / "two", "two-stage").code == 0
    assert record_of(tmp_path / "two")["params"]["heads"]["split"] == "none"
    assert by(transfer_arguments, tmp_path / "none", "backbone").code == 0
    alone = [
        read_frames(tmp_path / name / "zigzag" / f"video-1{end}.mp4")[0]
        for name, end in (("none", ""), ("own", "-without-adapter"))
    ]
    assert (alone[0] == alone[1]).all()


def test_the_backbone_alone_is_compared_with_the_part_that_is_wanted(
    transferred: Ended, transfer_arguments: Arguments, tmp_path: Path
) -> None:
    ended = by(transfer_arguments, tmp_path, "backbone", "--motion-of", "object")
    assert ended.code == 0, ended.err
    stages = list(record_of(tmp_path)["stages"])
    assert stages == ["ingest", "mask", "render", "evaluate"] and (tmp_path / "zigzag" / "mask.mp4").is_file()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ("--method", "dance"),
            f"--method dance: there is no such method; expected one of {', '.join(NAMES)}, or FILE.py",
        ),
        (("--method", "gone.py"), "there is no such file"),
        (("--method", "ditflow", "--set", "smm.adam_steps=2"), "is of another method than --method ditflow"),
        (("--method", "ditflow", "--set", "ditflow.nothing=2"), "ditflow.nothing"),
        (("--method", "two-stage", "--set", "heads.split=random"), "--method two-stage fixes this one; leave it out"),
        (("--method", "smm", "--preview"), "--preview shows what EffiVMT tunes"),
        (("--method", "smm", "--force", "temporal"), "smm can run these again: ingest, evaluate"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    options: tuple[str, ...], told: str, transfer_arguments: Arguments, tmp_path: Path
) -> None:
    ended = effivmt(*transfer_arguments(*options, "--out", tmp_path))
    assert ended.code == 2 and told in ended.err and len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--motion-of", "camera"), "SMM transfers whole motions"),
        (("--image", "gone.png"), "SMM makes videos of texts; leave the images out"),
    ],
)
def test_what_effivmt_alone_does_is_refused_before_an_engine_starts(
    options: tuple[str, ...],
    told: str,
    transfer_arguments: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("effivmt_tasks.server.reach_server", lambda **_: pytest.fail("an engine was started"))
    ended = by(transfer_arguments, tmp_path, "smm", *options, "--engine", "prefect")
    assert ended.code == 1 and told in ended.err and len(ended.err.splitlines()) == 1
