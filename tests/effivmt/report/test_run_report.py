"""The page of a catalog run: what it shows and holds, that text in it stays text, and when it is written."""

import base64
import json
import re
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from webpage import BROKEN_OUT, HOSTILE, Page, skeleton

from effivmt.catalog import load_catalog
from effivmt.errors import EffiVMTError
from effivmt.evaluation.metrics import METRICS
from effivmt.media.video import write_image
from effivmt.pipeline.catalog_run import run_catalog
from effivmt.pipeline.workspace import Workspace
from effivmt.report import run_page
from effivmt.report.run_page import render_run
from effivmt.report.run_record import read_run
from effivmt.report.run_report import write_run_report

CLIPS = ("one", "two")


@pytest.fixture
def out(run_folder: Path, tmp_path: Path) -> Path:
    """A copy of the run's folder, to change."""
    return shutil.copytree(run_folder, tmp_path / "out")


@pytest.fixture(scope="module")
def source(run_folder: Path) -> str:
    return (run_folder / "report.html").read_text(encoding="utf-8")


def held(page: Page) -> dict[str, bytes]:
    """Content of the page's files by id."""
    texts = iter(text for tag, text in page.texts if tag == "script")
    blocks = [attrs for attrs in page.all("script") if attrs.get("type") == "text/plain"]
    return {attrs["id"]: base64.b64decode(next(texts), validate=True) for attrs in blocks}


def metrics_of(out: Path, clip: str) -> list[dict]:
    return json.loads((out / clip / "metrics.json").read_text(encoding="utf-8"))["results"]


def test_every_video_and_head_map_is_held_once_byte_for_byte(run_folder: Path, source: str) -> None:
    page, expected = Page(source), []
    for clip in CLIPS:
        names = ["reference.mp4"]
        for row in metrics_of(run_folder, clip):
            names += [row["video"], row["without_adapter"]]
        expected += [(run_folder / clip / name).read_bytes() for name in names]
    files = held(page)
    shown = [files[attrs["data-file"]] for attrs in page.all("video")]
    assert shown == expected and len(shown) == 10
    assert [files[it["data-file"]] for it in page.all("img")] == [
        (run_folder / clip / "heads.png").read_bytes() for clip in CLIPS
    ]
    assert len(files) == len(set(files.values())) < 12  # the clips share their reference and what no adapter shaped
    assert all("muted" in attrs and "playsinline" in attrs and "src" not in attrs for attrs in page.all("video"))


def test_summary_and_clips_tell_what_lies_on_disk(run_folder: Path, source: str) -> None:
    page = Page(source)
    assert page.text_of("dd").split("\n")[:4] == ["3", "2", "1", "8"]
    assert page.text_of("h3").split("\n")[0::4][:2] == list(CLIPS)  # each is followed by its three loss curves
    cells = page.text_of("td").split("\n")
    measured = {name for clip in CLIPS for row in metrics_of(run_folder, clip) for name in row["adapter"]}
    assert measured == METRICS.keys() - {"background_leakage"}  # their ground is plain
    assert METRICS["background_leakage"].label not in page.text_of("th")
    for name in measured:
        assert METRICS[name].label in page.text_of("th") and METRICS[name].meaning in page.text_of("dd")
        for clips in (("one",), ("two",), CLIPS):  # the two classes, and all
            mean = fmean(row["adapter"][name] for clip in clips for row in metrics_of(run_folder, clip))
            assert f"{mean:.3f}" in cells or abs(mean) < 0.001
        values = [json.loads(attrs["data-values"]) for attrs in page.all("article")]
        assert [name in it for it in values] == [True, True, False]
        assert values[1][name] == pytest.approx(fmean(row["adapter"][name] for row in metrics_of(run_folder, "two")))
    assert [it["data-status"] for it in page.all("article")] == ["done"] * 2 + ["failed"]
    assert "does not exist" in page.text_of("li") and "does not exist" in page.text_of("p")
    assert page.text_of("pre").count("rank: 2") == 4
    made = json.loads((run_folder / "one" / "transfer.json").read_text(encoding="utf-8"))
    assert made["backbone"]["digest"] in page.text_of("code") and "torch" in page.text_of("p")
    assert {"ingest", "heads", "spatial", "temporal", "render", "evaluate"} <= set(page.text_of("th").split("\n"))


def test_a_method_is_shown_with_its_own_params(run_folder: Path) -> None:
    run = read_run(run_folder)
    method = {"method": {"name": "smm", "title": "SMM", "params": {"adam_steps": 7}}}
    clips = [replace(clip, made=clip.made and clip.made | method) for clip in run.clips]
    page = Page(render_run(run_folder, replace(run, clips=tuple(clips))))
    assert page.text_of("pre").count("smm:\n  adam_steps: 7") == 2 and "Method SMM." in page.text_of("p")


def test_the_image_that_a_video_begins_with_is_shown_beside_it(run_folder: Path, out: Path) -> None:
    given = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    write_image(out / "one" / "image-1.png", given)
    document = json.loads((out / "one" / "metrics.json").read_text(encoding="utf-8"))
    document["results"][0] |= {"image": "image-1.png", "prompt": ""}
    (out / "one" / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
    page = Page(render_run(out, read_run(out)))
    first, *others = page.all("img")
    assert held(page)[first["data-file"]] == (out / "one" / "image-1.png").read_bytes() and first["alt"]
    assert len(others) == 2 and page.text_of("figcaption").count("First frame") == 1
    assert "From an image" in page.text_of("h4") and page.all("video")[1]["aria-label"].endswith("from an image")


def test_hostile_text_stays_text(run_folder: Path, out: Path, source: str) -> None:
    written = Page(source)
    assert BROKEN_OUT in written.text_of("p") and BROKEN_OUT in written.text_of("h4")
    assert f"{BROKEN_OUT[9:]}.mp4 does not exist" in written.text_of("li")

    def filled(text: str) -> Page:
        for clip in CLIPS:
            metrics = {"results": [row | {"prompt": text} for row in metrics_of(run_folder, clip)]}
            metrics["results"][0]["adapter"][text] = 1.0
            (out / clip / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        run = read_run(out)
        words = {"group": text, "caption": text, "prompts": (text,), "stage": text, "reason": text}
        made = {"params": {text: text}, "backbone": {"id": text, "digest": text}, "versions": {text: text}}
        clips = [replace(clip, **words, made=clip.made and clip.made | made) for clip in run.clips]
        return Page(render_run(out, replace(run, catalog=text, ended=text, clips=tuple(clips))))

    hostile = filled(HOSTILE)
    assert skeleton(hostile) == skeleton(filled("plain words"))
    for page in (written, hostile):
        assert [attrs.get("type") for attrs in page.all("script")].count(None) == 1
        assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    for tag, least in {"h1": 1, "title": 1, "h4": 4, "option": 2, "li": 2, "p": 5, "th": 1, "pre": 2}.items():
        assert hostile.text_of(tag).count(HOSTILE) >= least, tag


def test_the_page_reaches_for_nothing_outside_itself(source: str) -> None:
    page = Page(source)
    without_files = re.sub(r'(<script type="text/plain"[^>]*>)[A-Za-z0-9+/=]+', r"\1", source)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|fetch\(|XMLHttpRequest|import\(", without_files)
    for _, attrs in page.elements:
        assert not attrs.keys() & {"src", "srcset", "poster", "action", "style", "background", "data"}
        assert attrs.get("href", "#").startswith("#")
    (policy,) = [attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    style, script = (page.text_of(tag).split("\n", len(held(page)))[-1] if tag == "script" else page.text_of(tag)
                     for tag in ("style", "script"))  # fmt: skip
    digests = ["'sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode() + "'" for text in (style, script)]
    assert rules == {
        "default-src": "'none'",
        "img-src": "blob:",
        "media-src": "blob:",
        "style-src": digests[0],
        "script-src": digests[1],
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_the_page_is_written_only_when_something_changed(out: Path) -> None:
    page = out / "report.html"
    before = page.stat().st_mtime_ns, page.read_bytes()
    document = json.loads((out / "run.json").read_text(encoding="utf-8"))
    later = document | {"ended": "2030-01-01T00:00:00Z", "seconds": 1.0, "done": 0, "hit": 2}
    later["clips"] = [row | {"status": "hit"} if row["status"] == "done" else row for row in document["clips"]]
    (out / "run.json").write_text(json.dumps(later), encoding="utf-8")
    assert write_run_report(out) == page
    assert (page.stat().st_mtime_ns, page.read_bytes()) == before

    later["clips"][2]["reason"] = "the disk is full"
    (out / "run.json").write_text(json.dumps(later), encoding="utf-8")
    write_run_report(out)
    again = page.read_text(encoding="utf-8")
    assert "the disk is full" in again and "2030-01-01 00:00:00 UTC" in again and "from the store" in again

    made = json.loads((out / "one" / "transfer.json").read_text(encoding="utf-8"))
    made |= {"made_of": "other", "clip": made["clip"] | {"caption": "a new caption"}}
    (out / "one" / "transfer.json").write_text(json.dumps(made), encoding="utf-8")
    assert "a new caption" in write_run_report(out).read_text(encoding="utf-8")


def test_a_run_of_some_clips_keeps_what_the_page_says_of_the_others(
    run_folder: Path, out: Path, workspace: Workspace
) -> None:
    some = load_catalog(run_folder.parent / "c.jsonl").only(("lost",))
    backbone = workspace.params.backbone.model_copy(update={"max_sequence_length": 64})  # as in the run before
    workspace = replace(workspace, params=workspace.params.model_copy(update={"backbone": backbone}))
    record = run_catalog(workspace, some, out)
    assert record.done == 0 and record.failed == 1
    assert (out / "report.html").read_bytes() == (run_folder / "report.html").read_bytes()
    (out / "report.html").unlink()
    page = Page(write_run_report(out).read_text(encoding="utf-8"))
    assert [it["data-class"] for it in page.all("article")] == ["plain", BROKEN_OUT, "none"]
    assert [it["data-status"] for it in page.all("article")] == ["done", "done", "failed"]


def test_a_clip_whose_folder_is_gone_or_damaged_does_not_take_the_page_with_it(out: Path) -> None:
    shutil.rmtree(out / "one")
    (out / "two" / "reference.mp4").write_bytes(b"no video")
    page = Page(write_run_report(out).read_text(encoding="utf-8"))
    assert [it["data-status"] for it in page.all("article")] == ["failed"] * 3
    assert "its folder one is missing or incomplete; run this clip again" in page.text_of("li")
    assert "reference.mp4" in page.text_of("li") and not page.all("video")


def test_a_run_too_large_for_one_page_links_to_the_pages_of_its_clips(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_page, "LIMIT", 10_000)
    page = Page(render_run(out, read_run(out)))
    assert not page.all("video") + page.all("img") and not held(page)
    links = [attrs["href"] for attrs in page.all("a") if not attrs["href"].startswith("#")]
    assert links == [f"{clip}/report.html" for clip in CLIPS] and all((out / link).is_file() for link in links)
    assert "too large for one page" in page.text_of("p")
    assert all(attrs["data-values"] for attrs in page.all("article")) and page.all("path")


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(EffiVMTError, match=r"holds no whole run .*run the catalog again"):
        write_run_report(tmp_path)
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(EffiVMTError, match="holds no whole run"):
        write_run_report(tmp_path)


def test_controls_and_figures_have_names(source: str) -> None:
    page = Page(source)
    assert all(attrs.get("aria-label") for attrs in page.all("video"))
    assert all(attrs["alt"] for attrs in page.all("img"))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
