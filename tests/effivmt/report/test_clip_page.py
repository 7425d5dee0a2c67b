"""The page of a clip, parsed as a browser would: what it shows, what it embeds, and that text in it stays text."""

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from webpage import HOSTILE, Page, skeleton

from effivmt.errors import VideoError
from effivmt.evaluation.metrics import METRICS
from effivmt.media.figures import head_map
from effivmt.media.video import write_image, write_video
from effivmt.report.clip_page import Report, Result, Timing, render_report


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("report")
    draw = np.random.default_rng(0)
    made = {}
    for name, (height, width) in {"reference": (64, 64), "a": (64, 48), "b": (64, 64), "large": (240, 416)}.items():
        made[name] = folder / f"{name}.mp4"
        write_video(made[name], draw.integers(0, 255, (5, height, width, 3), dtype=np.uint8), 8.0)
    made["heads"] = folder / "heads.png"
    scores = draw.uniform(size=(2, 3, 4))
    write_image(made["heads"], head_map(*scores, np.where(scores[0] < scores[1], "temporal", "spatial")))
    return made


@pytest.fixture
def report(files: dict[str, Path]) -> Report:
    metrics = {name: 0.1 + index / 8 for index, name in enumerate(METRICS)}
    return Report(
        clip="ball-01",
        caption="a red ball rolls left",
        reference=files["reference"],
        backbone_id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        backbone_digest="5f" * 32,
        results=(
            Result("a blue cube slides left", 3, files["a"], metrics, files["b"], {"motion_fidelity": -0.4321}),
            Result("a boat drifts left", 4, files["large"], {"motion_fidelity": None, "loud_ness": 2.5e-5}),
        ),
        head_map=files["heads"],
        losses={"spatial": [1.0, 0.5, 0.25], "temporal": (2 + np.sin(np.arange(3000))).tolist()},
        timings={"heads": Timing(2.5, True), "spatial": Timing(61.0, False), "temporal": Timing(125.0, False)},
        params={"seed": 7, "temporal": {"rope": "aligned", "levels": [0.5, 0.9]}},
        versions={"torch": "2.13.0"},
    )


def embedded(page: Page, tag: str) -> list[tuple[str, bytes]]:
    uris = [attrs["src"] for attrs in page.all(tag) if "src" in attrs]
    return [(uri.split(";")[0], base64.b64decode(uri.split(",", 1)[1], validate=True)) for uri in uris]


def test_videos_and_image_are_embedded_byte_for_byte(report, files):
    page = Page(render_report(report))
    expected = [("data:video/mp4", files[name].read_bytes()) for name in ("reference", "a", "b", "large")]
    assert embedded(page, "video") == expected
    assert embedded(page, "img") == [("data:image/png", files["heads"].read_bytes())]


def test_a_card_shows_reference_with_and_without_adapter_at_a_useful_size(report):
    videos = Page(render_report(report)).all("video")
    shown = [(attrs["aria-label"].split(":")[0], attrs["width"], attrs["height"], attrs["class"]) for attrs in videos]
    assert shown == [
        ("Reference video of clip ball-01", "256", "256", "tiny"),
        ("Reference video", "256", "256", "tiny copy"),
        ("With the adapter", "192", "256", "tiny"),
        ("Without the adapter", "256", "256", "tiny"),
        ("Reference video", "256", "256", "tiny copy"),
        ("With the adapter", "400", "231", ""),
    ]
    assert all("muted" in attrs and "playsinline" in attrs for attrs in videos)
    assert [attrs["id"] for attrs in videos if "id" in attrs] == ["reference"]


def test_the_page_reaches_for_nothing_outside_itself(report):
    source = render_report(report)
    page = Page(source)
    without_text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", source)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|fetch\(|XMLHttpRequest|import\(", without_text)
    for _, attrs in page.elements:
        assert not attrs.keys() & {"href", "srcset", "poster", "action", "style", "background", "data"}
        assert attrs.get("src", "data:").startswith("data:")
    assert not page.all("link") + page.all("iframe") + page.all("object") + page.all("form")


def test_the_policy_allows_its_own_style_and_script_and_no_network(report):
    page = Page(render_report(report))
    (policy,) = [attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def allowed(tag: str) -> str:
        (content,) = [text for name, text in page.texts if name == tag]
        return "'sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() + "'"

    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "media-src": "data: blob:",
        "style-src": allowed("style"),
        "script-src": allowed("script"),
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_hostile_text_stays_text_wherever_it_stands(report):
    def filled(text: str) -> Page:
        first, second = report.results
        return Page(
            render_report(
                replace(
                    report,
                    clip=text,
                    caption=text,
                    backbone_id=text,
                    backbone_digest=text,
                    results=(replace(first, prompt=text, metrics={text: 1.0}), replace(second, prompt=text)),
                    losses={text: [2.0, 1.0]},
                    timings={text: Timing(1.0, True)},
                    params={text: {text: text}},
                    versions={text: text},
                )
            )
        )

    hostile, harmless = filled(HOSTILE), filled("plain words")
    assert skeleton(hostile) == skeleton(harmless)
    assert len(hostile.all("script")) == 1
    assert not any(name.startswith("on") for _, attrs in hostile.elements for name in attrs)
    for tags, times in {
        ("h1",): 1,
        ("title",): 1,
        ("h3",): 3,
        ("dd",): 1,
        ("td",): 1,
    }.items():
        assert hostile.text_of(*tags).count(HOSTILE) == times, tags
    assert HOSTILE in hostile.text_of("p")
    assert yaml.safe_load(hostile.text_of("pre")) == {HOSTILE: {HOSTILE: HOSTILE}}


def test_every_prompt_metric_stage_and_version_is_on_the_page(report):
    page = Page(render_report(report))
    assert page.text_of("h3").split("\n")[:2] == ["a blue cube slides left", "a boat drifts left"]
    assert page.text_of("h1") == "ball-01"
    values = page.text_of("td").split("\n")
    for index, metric in enumerate(METRICS.values()):
        assert f"{0.1 + index / 8:.3f}" in values and metric.label in page.text_of("th")
        assert metric.label in page.text_of("dt")
        assert metric.meaning in page.text_of("dd")
    assert {"-0.432", "2.5e-05", "–", "2.5 s", "1 min 01 s", "2 min 05 s", "2.13.0"} <= set(values)
    assert "loud ness" in page.text_of("th")
    assert "loud ness" in page.text_of("dt")
    paragraphs = page.text_of("p")
    assert all(text in paragraphs for text in ("a red ball rolls left", "seed 3", "seed 4", "3 min 06 s"))
    assert report.backbone_digest in page.text_of("code")
    assert [text for tag, text in page.texts if text == "from the store"] == ["from the store"]
    assert yaml.safe_load(page.text_of("pre")) == report.params


def points(path: str) -> np.ndarray:
    return np.array([[float(number) for number in pair] for pair in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)])


def test_loss_curves_are_drawn_from_the_data(report):
    losses = {"spatial": [1.0, 0.5, 0.25], "temporal": [1.0, 0.9, float("nan"), 0.7, float("inf"), 0.2, 0.1]}
    page = Page(render_report(replace(report, losses=losses)))
    raw = {attrs["class"].split("-")[1]: attrs["d"] for attrs in page.all("path") if attrs["class"].startswith("raw")}
    x, y = points(raw["spatial"]).T
    np.testing.assert_allclose(np.diff(x), np.diff(x)[0], atol=0.11)
    np.testing.assert_allclose((y[1] - y[0]) / (y[2] - y[0]), 0.5 / 0.75, atol=0.01)
    assert y[2] > y[1] > y[0]
    assert raw["spatial"].count("M") == 1
    assert raw["temporal"].count("M") == 3
    assert len(points(raw["temporal"])) == 5
    assert "3 steps, smoothed loss from 1 to 0.25" in page.text_of("figcaption")


def test_a_long_loss_curve_keeps_its_extremes_in_few_points(report):
    losses = np.full(5000, 1.0)
    losses[[1234, 4321]] = 9.0, -3.0
    page = Page(render_report(replace(report, losses={"temporal": losses.tolist()})))
    raw, smoothed = (points(attrs["d"]) for attrs in page.all("path"))
    assert len(raw) < 700
    assert len(smoothed) == 300
    assert raw[:, 1].min() == pytest.approx(raw[0, 1] - 2 * (raw[:, 1].max() - raw[0, 1]), abs=0.3)


def test_losses_without_a_finite_value_say_so(report):
    page = Page(render_report(replace(report, losses={"spatial": [float("nan")] * 2, "temporal": []})))
    assert not page.all("svg")[: -len(report.timings)]
    assert "none of the 2 losses is a finite number" in page.text_of("figcaption")


def test_a_clip_without_results_still_has_a_page(report):
    bare = Report("ball-01", "a ball", report.reference, "wan", "5f")
    page = Page(render_report(bare))
    assert len(page.all("video")) == 1
    assert not page.all("table") + page.all("svg") + page.all("img") + page.all("details")


def test_the_same_data_gives_the_same_page(report):
    assert render_report(report) == render_report(report)


def test_controls_and_figures_have_names(report):
    page = Page(render_report(report))
    assert all(attrs.get("aria-label") for attrs in page.all("video") + page.all("input") + page.all("section"))
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") for attrs in page.all("svg"))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert sorted(ids) == ["player", "reference"]


def test_a_video_or_image_that_cannot_be_shown_is_named(report, files, tmp_path):
    missing = tmp_path / "gone.mp4"
    for broken in (
        replace(report, reference=missing),
        replace(report, results=(replace(report.results[0], video=missing),)),
        replace(report, results=(replace(report.results[0], without_adapter=missing),)),
    ):
        with pytest.raises(VideoError, match=r"gone\.mp4.*cannot be read \(No such file"):
            render_report(broken)
    with pytest.raises(VideoError, match=r"report image .*gone\.png.*cannot be read"):
        render_report(replace(report, head_map=tmp_path / "gone.png"))
    with pytest.raises(VideoError, match=r"heads\.png' ends in '\.png', expected \.mp4 or \.webm"):
        render_report(replace(report, reference=files["heads"]))
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(VideoError, match=r"text\.mp4"):
        render_report(replace(report, reference=text))
    with pytest.raises(VideoError, match="is not a PNG"):
        render_report(replace(report, head_map=text))


def test_a_video_that_browsers_do_not_play_is_refused(report, tmp_path):
    path = tmp_path / "old.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for level in (10, 200):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8))))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="coded as mpeg4, expected h264"):
        render_report(replace(report, reference=path))
