"""Counts the tries of each area, and how many held; `make trust` prints them at its end."""

import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import trial
from project import Project, made_project
from trial import Tries

from effivmt.store.memory import peak_bytes, reset_peak

SAMPLED = 0.05
"""Seconds between two looks at this process's peak memory, which every stage resets."""


@dataclass
class Area:
    """What the tests of one file did; `seconds` on the wall, `busy` those of processors, of all processes."""

    tries: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    busy: float = 0.0
    peak: int = 0


AREAS: dict[str, Area] = defaultdict(Area)


@pytest.fixture
def tries() -> Tries:
    return Tries()


@pytest.fixture(scope="session")
def whole_project(
    tmp_path_factory: pytest.TempPathFactory, backbone_folder: Path, scorer_folder: Path, sample_video: Path
) -> Project:
    """Made by the first test that asks."""
    root, pristine = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("pristine")
    return made_project(root, pristine, backbone=backbone_folder, scorer=scorer_folder, video=sample_video)


@pytest.fixture
def project(whole_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The session's project, as it was made."""
    whole_project.enter(monkeypatch)
    whole_project.restore()
    return whole_project


@pytest.fixture(autouse=True)
def _counted(request: pytest.FixtureRequest, tries: Tries) -> Iterator[None]:
    """The tries and the peak memory of one test: of this process, or of those that it has measured."""
    trial.PEAKS.clear()
    reset_peak()
    busy = processor_seconds()
    seen, ended = [peak_bytes()], threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLED):
            seen.append(max(seen.pop(), peak_bytes()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    ended.set()
    watcher.join()
    area = AREAS[request.path.stem.removeprefix("test_").replace("_", " ")]
    area.busy += processor_seconds() - busy
    area.peak = max(area.peak, *(trial.PEAKS or [seen[0], peak_bytes()]))
    request.node.user_properties.append(("tries", tries.counted or 1))


def processor_seconds() -> float:
    """Of this process and its children, those that have ended and those that have not."""
    total = sum(os.times()[:4])
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            total += sum(child.cpu_times()[:4])
    return total


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    area = AREAS[Path(report.location[0]).stem.removeprefix("test_").replace("_", " ")]
    area.seconds += report.duration
    if report.when == "teardown":
        area.tries["made"] += dict(report.user_properties).get("tries", 0)
    elif report.failed:
        area.tries["failed"] += 1
    elif report.skipped:
        area.tries["skipped"] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.option.markexpr == "not slow":
        return
    heading = f"{'area':<24}{'tries':>8}{'held':>8}{'seconds':>9}{'processor s':>13}{'peak MiB':>10}"
    terminalreporter.section("trust")
    terminalreporter.line(heading)
    total = Area(busy=processor_seconds())  # with what fixtures of the session took
    for area in AREAS.values():
        total.tries += area.tries
        total.seconds += area.seconds
        total.peak = max(total.peak, area.peak)
    for name, area in [*sorted(AREAS.items()), ("all", total)]:
        made = area.tries["made"] - area.tries["skipped"]
        held, peak = made - area.tries["failed"], area.peak // 2**20
        terminalreporter.line(f"{name:<24}{made:>8}{held:>8}{area.seconds:>9.0f}{area.busy:>13.0f}{peak:>10}")
