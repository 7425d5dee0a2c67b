"""The page of a catalog run in headless Chromium, from disk."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Tab, browsing, find_browser

from effivmt.media.video import write_image
from effivmt.report import run_page
from effivmt.report.run_record import read_run

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium on the path (apt-get install chromium)")
TIMES = """(() => {
  const videos = [...document.querySelectorAll('#clip-CLIP video')];
  return videos.map((video) => video.src && !video.paused ? video.currentTime / video.duration : -1);
})()"""
SHOWN = "[...document.querySelectorAll('article.clip')].filter((card) => !card.hidden).map((card) => card.id.slice(5))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browsing(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab) -> Iterator[Tab]:
    """The browser's tab; whatever a test does there, the console stays clean and nothing comes from elsewhere."""
    browser.faults.clear()
    browser.requests.clear()
    yield browser
    browser.run("document.title")
    assert browser.faults == []
    assert {address.split(":")[0] for address in browser.requests} <= {"file", "blob", "data"}


@pytest.fixture
def page(run_folder: Path) -> Path:
    return run_folder / "report.html"


def look_at(tab: Tab, clip: str) -> None:
    tab.run(f"document.getElementById('clip-{clip}').scrollIntoView()")


def test_videos_of_a_clip_play_in_step(tab: Tab, page: Path) -> None:
    tab.open(page, height=1000)
    look_at(tab, "two")
    times = TIMES.replace("CLIP", "two")
    tab.wait(f"{times}.every((time) => time > 0)")
    before = tab.run(times)
    assert len(before) == 5
    tab.wait(f"{times}[0] > {before[0]} + 0.1 || {times}[0] < {before[0]}")
    steps = [tab.run(times) for _ in range(10)]
    spreads = sorted(max(step) - min(step) for step in steps)
    assert spreads[5] < 0.125, steps  # a sixteenth of the clip is one frame; a loop's seam may show once
    tab.run("document.querySelector('#player button').click()")
    slider = "document.querySelector('#player input')"
    tab.run(f"{slider}.value = 500, {slider}.dispatchEvent(new Event('input'))")
    tab.wait("[...document.querySelectorAll('#clip-two video')].every((video) => video.paused && !video.seeking)")
    shares = tab.run(
        "[...document.querySelectorAll('#clip-two video')].map((video) => video.currentTime / video.duration)"
    )
    assert shares == pytest.approx([0.5] * 5, abs=0.01)


def test_videos_out_of_view_hold_no_file(tab: Tab, page: Path) -> None:
    tab.open(page, height=300)
    loaded = "[...document.querySelectorAll('video')].filter((video) => video.src).length"
    look_at(tab, "one")
    tab.wait(f"{loaded} > 1")
    look_at(tab, "lost")
    tab.wait("[...document.querySelectorAll('#clip-one video')].every((video) => !video.src)")
    tab.run("scrollTo(0, 0)")
    tab.wait(f"{loaded} === 0")


def test_filters_and_order(tab: Tab, page: Path) -> None:
    tab.open(page)

    def choose(control: str, value: str, event: str = "change") -> list[str]:
        tab.run(f"document.getElementById('{control}').value = {json.dumps(value)}")
        tab.run(f"document.getElementById('{control}').dispatchEvent(new Event('{event}'))")
        return tab.run(SHOWN)

    assert tab.run(SHOWN) == ["one", "two", "lost"]
    assert choose("search", "GREEN plain", "input") == ["one"]
    assert choose("search", "onerror", "input") == ["one", "two", "lost"]  # in prompts, captions and a reason
    assert choose("search", "does not exist", "input") == ["lost"]
    assert tab.run("document.getElementById('count').value") == "1 of 3 clips"
    assert choose("search", "nothing like it", "input") == []
    assert tab.run("document.getElementById('none').checkVisibility()")
    assert choose("search", "", "input") == ["one", "two", "lost"]
    assert choose("status", "failed") == ["lost"] and choose("status", "done") == ["one", "two"]
    choose("status", "")
    assert choose("class", "plain") == ["one"] and choose("class", "none") == ["lost"]
    assert choose("class", tab.run("document.getElementById('class').options[2].value")) == ["two"]
    choose("class", "")

    values = {
        clip: tab.run(f"JSON.parse(document.getElementById('clip-{clip}').dataset.values)") for clip in ("one", "two")
    }
    for metric, highest_first in (("motion_fidelity", True), ("trajectory_error", False)):
        best = sorted(values, key=lambda clip: values[clip][metric], reverse=highest_first)
        assert choose("order", metric) == [*best, "lost"]
        tab.run("document.getElementById('reversed').click()")
        assert tab.run(SHOWN) == [*best[::-1], "lost"]
        tab.run("document.getElementById('reversed').click()")
    assert choose("order", "row") == ["one", "two", "lost"]


def test_details_show_the_head_map(tab: Tab, page: Path) -> None:
    tab.open(page)
    tab.run("document.querySelector('#clip-one summary').click()")
    tab.wait("document.querySelector('#clip-one img').naturalWidth > 0")
    assert tab.run("document.querySelector('#clip-two img').naturalWidth") == 0
    assert tab.run("document.querySelectorAll('#clip-one svg path').length") == 6
    look_at(tab, "lost")
    tab.run("document.querySelector('.failures a').click()")
    assert tab.run("location.hash") == "#clip-lost"


def test_a_first_frame_is_loaded_when_its_clip_is_near(tab: Tab, run_folder: Path, tmp_path: Path) -> None:
    out = shutil.copytree(run_folder, tmp_path / "out")
    for clip in ("one", "two"):
        write_image(out / clip / "image-1.png", np.full((32, 32, 3), 200, np.uint8))
        document = json.loads((out / clip / "metrics.json").read_text(encoding="utf-8"))
        document["results"][0]["image"] = "image-1.png"
        (out / clip / "metrics.json").write_text(json.dumps(document), encoding="utf-8")
    (out / "report.html").write_text(run_page.render_run(out, read_run(out)), encoding="utf-8")
    tab.open(out / "report.html", height=300)
    loaded = "[...document.querySelectorAll('.given img')].map((image) => image.naturalWidth)"
    assert tab.run(loaded) == [0, 0]
    look_at(tab, "two")
    tab.wait(f"{loaded}[1] === 32")
    tab.open(out / "report.html", 390)
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")


def test_less_motion_waits_for_the_play_button_which_keys_reach(tab: Tab, page: Path) -> None:
    tab.open(page, calm=True)
    look_at(tab, "one")
    tab.wait("document.querySelector('#clip-one video').readyState >= 1 && !document.getElementById('player').hidden")
    assert tab.run("[...document.querySelectorAll('video')].every((video) => video.paused)")
    tab.run("document.getElementById('reversed').focus()")
    tab.press("Tab", 9)
    assert tab.run("document.activeElement.textContent") == "Play"
    tab.press(" ", 32, " ")
    tab.wait("!document.querySelector('#clip-one video').paused && document.activeElement.textContent === 'Pause'")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(tab: Tab, page: Path, width: int) -> None:
    tab.open(page, width)
    tab.run("document.querySelectorAll('details').forEach((element) => { element.open = true; })")
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")


def test_a_page_that_holds_no_files_works_too(
    tab: Tab, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_page, "LIMIT", 1)
    (tmp_path / "report.html").write_text(run_page.render_run(run_folder, read_run(run_folder)), encoding="utf-8")
    tab.open(tmp_path / "report.html")
    assert tab.run("document.getElementById('count').value") == "3 of 3 clips"
    assert tab.run("document.getElementById('player').hidden")


def test_the_page_of_one_clip_plays_in_step(tab: Tab, run_folder: Path) -> None:
    tab.open(run_folder / "one" / "report.html")
    tab.wait("!document.getElementById('player').hidden")
    times = (
        "[...document.querySelectorAll('video')].map((video) => video.paused ? -1 : video.currentTime / video.duration)"
    )
    tab.wait(f"{times}.every((time) => time > 0)")
    spreads = sorted(max(step) - min(step) for step in (tab.run(times) for _ in range(10)))
    assert spreads[5] < 0.125
