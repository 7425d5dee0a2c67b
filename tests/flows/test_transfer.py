"""A transfer without an engine, end to end: what it writes, what it does not do twice, and what a kill leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import PROMPTS, Ended, effivmt
from PIL import Image
from safetensors import safe_open

import effivmt as effivmt_package
import effivmt_flows
import effivmt_tasks
from effivmt.catalog import clip_id
from effivmt.media.video import read_frames, write_video
from effivmt.method.adapter import load_adapter
from effivmt.pipeline.stages import STAGES
from effivmt_flows.cli.progress import StageLines

Arguments = Callable[..., list[str]]
FILES = {
    "losses.json",
    "transfer.json",
    "adapter",
    "heads.png",
    "metrics.json",
    "reference.mp4",
    "report.html",
    "sheet.png",
}
VIDEOS = {"video-1.mp4", "video-1-without-adapter.mp4"}
LONG = 60
"""Steps of a tuning that is there to be killed."""


def test_first_run_writes_everything(project: Path, transferred: Ended) -> None:
    assert transferred.code == 0, transferred.err
    assert transferred.outcomes() == dict.fromkeys(STAGES, "done")
    folder = project / "out" / "zigzag"
    assert {path.name for path in folder.iterdir()} == FILES | VIDEOS | {"video-2.mp4", "video-2-without-adapter.mp4"}
    for name in (*VIDEOS, "video-2.mp4", "video-2-without-adapter.mp4", "reference.mp4"):
        frames, fps = read_frames(folder / name)
        assert frames.shape == (17, 32, 32, 3) and fps == 8
    assert not np.array_equal(read_frames(folder / "video-1.mp4")[0], read_frames(folder / "video-2.mp4")[0])
    assert load_adapter(folder / "adapter").facts["ranks"] == {"spatial": 2, "temporal": 2}
    heights = [Image.open(folder / name).size[1] for name in ("sheet.png", "heads.png")]
    assert heights[0] > 5 * 128  # the reference and two prompts with and without the adapter, 128 px a frame


def test_metrics_and_report_tell_of_every_video(project: Path, transferred: Ended) -> None:
    folder = project / "out" / "zigzag"
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert [(row["video"], row["prompt"]) for row in metrics["results"]] == [
        ("video-1.mp4", PROMPTS[0]),
        ("video-2.mp4", PROMPTS[1]),
    ]
    for row in metrics["results"]:
        assert row["adapter"].keys() == row["baseline"].keys() >= {"text_similarity", "motion_fidelity"}
        assert row["adapter"] != row["baseline"]
        assert row["without_adapter"] == row["video"].replace(".mp4", "-without-adapter.mp4")
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert all(prompt in report for prompt in PROMPTS)
    assert report.count("data:video/mp4;base64,") >= 5
    for name in ("video-1.mp4", "sheet.png", "heads.png", "adapter", "report.html"):
        assert str(folder / name) in transferred.out


def test_second_run_does_nothing(project: Path, transferred: Ended, transfer_arguments: Arguments) -> None:
    folder = project / "out" / "zigzag"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "report.html"}
    again = effivmt(*transfer_arguments("--out", project / "out"))
    assert again.outcomes() == dict.fromkeys(STAGES, "hit")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "from the store" in (folder / "report.html").read_text(encoding="utf-8")


def test_new_prompt_is_only_rendered(
    project: Path, transferred: Ended, transfer_arguments: Arguments, tmp_path: Path
) -> None:
    shutil.copytree(project / "out", tmp_path / "out")
    (tmp_path / "out" / "zigzag" / "video-9.mp4").write_bytes(b"the user's own")
    new = effivmt(*transfer_arguments("--out", tmp_path / "out", prompts=("a blue square moving left",)))
    assert new.outcomes() == dict.fromkeys(STAGES, "hit") | {"render": "done", "evaluate": "done"}
    names = {path.name for path in (tmp_path / "out" / "zigzag").iterdir()}
    assert names == FILES | VIDEOS | {"video-9.mp4"}  # the second prompt's videos of the earlier run are gone
    old, changed = ((root / "out" / "zigzag" / "video-1.mp4").read_bytes() for root in (project, tmp_path))
    assert old != changed


def test_seeds_name_their_videos(
    project: Path, transferred: Ended, transfer_arguments: Arguments, tmp_path: Path
) -> None:
    both = ("--set", "render.seeds=[0, 3]", "--set", "render.baseline=false", "--out", tmp_path)
    ended = effivmt(*transfer_arguments(*both, prompts=PROMPTS[:1]))
    assert ended.code == 0, ended.err
    videos = [tmp_path / "zigzag" / f"video-1-seed{seed}.mp4" for seed in (0, 3)]
    assert videos[0].read_bytes() == (project / "out" / "zigzag" / "video-1.mp4").read_bytes() != videos[1].read_bytes()
    assert not list((tmp_path / "zigzag").glob("*without*"))
    rows = json.loads((tmp_path / "zigzag" / "metrics.json").read_text(encoding="utf-8"))["results"]
    assert [(row["seed"], "baseline" in row) for row in rows] == [(0, False), (3, False)]


def test_forced_stage_runs_again_and_gives_the_same(
    project: Path, transferred: Ended, transfer_arguments: Arguments
) -> None:
    forced = effivmt(*transfer_arguments("--force", "temporal", "--out", project / "out"))
    assert forced.outcomes() == dict.fromkeys(STAGES, "hit") | {"temporal": "done"}


def test_damaged_artifacts_are_made_again(
    project: Path, transferred: Ended, transfer_arguments: Arguments, tmp_path: Path
) -> None:
    store = shutil.copytree(project / "store", tmp_path / "store")
    videos = (store / "render").glob("*/video.mp4")
    for video in videos:
        video.write_bytes(b"\0" * video.stat().st_size)
    ended = effivmt(*transfer_arguments("--store", store, "--out", tmp_path / "out"))
    assert ended.code == 0 and ended.outcomes() == dict.fromkeys(STAGES, "hit") | {"render": "done"}
    told = [line for line in ended.err.splitlines() if "damage" in line or "dropped" in line]
    assert len(told) == 4
    assert all("video.mp4 has changed" in line and line.endswith("it is dropped, and made again") for line in told)
    for name in VIDEOS:
        assert (tmp_path / "out" / "zigzag" / name).read_bytes() == (project / "out" / "zigzag" / name).read_bytes()


def test_another_video_of_the_name_replaces_nothing(
    project: Path, transferred: Ended, transfer_arguments: Arguments, tmp_path: Path
) -> None:
    shutil.copytree(project / "out", tmp_path / "out")
    arguments = transfer_arguments("--out", tmp_path / "out")
    other = tmp_path / "zigzag.mp4"
    write_video(other, read_frames(project / "out" / "zigzag" / "reference.mp4")[0][::-1], 8)
    arguments[1] = str(other)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    refused = effivmt(*arguments)
    assert refused.code == 1 and "zigzag holds the results of another video" in refused.err and "--name" in refused.err
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_missing_video_is_told_before_an_engine_starts(transfer_arguments: Arguments, tmp_path: Path) -> None:
    arguments = transfer_arguments("--out", tmp_path / "out", "--engine", "prefect")
    arguments[1] = str(tmp_path / "none.mp4")
    ended = effivmt(*arguments)
    assert ended.code == 1 and "none.mp4 does not exist" in ended.err and "Prefect" not in ended.err


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("my clip (1)", "my-clip-1"),
        ("видео", "6e9d47cd"),
        ("видео 1", "1-d0ee86dd"),
        ("другое 1", "1-ba928ac6"),
        ("???", "a03b221c"),
    ],
)
def test_every_file_name_gives_an_id_of_its_own(stem: str, name: str) -> None:
    assert clip_id(stem) == name


def test_out_folder_that_cannot_be_written(transferred: Ended, transfer_arguments: Arguments, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    ended = effivmt(*transfer_arguments("--out", tmp_path / "out"))
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith(f"error: {tmp_path / 'out' / 'zigzag'} cannot be written")


@pytest.fixture(scope="module")
def long_run(project: Path, transferred: Ended, transfer_arguments: Arguments) -> Callable[[Path], list[str]]:
    """Arguments of a transfer whose motion tuning is long, for a folder that receives a copy of the store."""

    def arguments(folder: Path, steps: int = LONG) -> list[str]:
        store = shutil.copytree(project / "store", folder / "store")
        long = ("--store", store, "--out", folder / "out", "--set", f"temporal.steps={steps}")
        return transfer_arguments(*long, prompts=PROMPTS[:1])

    return arguments


def test_killed_run_goes_on_to_the_same_bytes(long_run: Callable[[Path], list[str]], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert effivmt(*long_run(whole)).code == 0
    command = [
        sys.executable,
        "-c",
        "import sys; from effivmt_flows.cli.main import main; sys.exit(main(sys.argv[1:]))",
    ]
    arguments = long_run(killed)
    published = set((killed / "store" / "temporal").iterdir())
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    checkpoint = _wait_for_checkpoint(killed / "store")
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert set((killed / "store" / "temporal").iterdir()) == published
    with safe_open(checkpoint, framework="np") as file:
        assert 1 <= int(file.metadata()["step"]) < LONG
    listing = "import sys; from effivmt_flows.cli.main import main; code = main(sys.argv[1:]); "
    listing += "print(*sys.modules); sys.exit(code)"
    rerun = subprocess.run([sys.executable, "-c", listing, *arguments], capture_output=True, text=True, timeout=200)
    assert rerun.returncode == 0, rerun.stderr
    assert Ended(0, "", rerun.stderr).outcomes() == {
        "ingest": "hit", "heads": "hit", "spatial": "hit", "temporal": "done", "render": "done", "evaluate": "done"
    }  # fmt: skip
    for name in ("adapter/temporal.safetensors", "adapter/adapter.json", "video-1.mp4", "metrics.json"):
        results = [(root / "out" / "zigzag" / name).read_bytes() for root in (whole, killed)]
        assert results[0] == results[1], name
    assert not {"prefect", "mlflow", "dvc"} & set(rerun.stdout.splitlines()[-1].split())


def test_interrupted_run_says_how_to_go_on(long_run: Callable[[Path], list[str]], tmp_path: Path) -> None:
    arguments = long_run(tmp_path, steps=100_000)

    def interrupt() -> None:
        _wait_for_checkpoint(tmp_path / "store")
        os.kill(os.getpid(), signal.SIGINT)

    # A shell starts what runs in its background with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        ended = effivmt(*arguments)
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.code == 130
    assert ended.err.splitlines()[-1] == "stopped; run the same command again to go on"


def _wait_for_checkpoint(store: Path) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := list(store.glob("scratch/*/temporal.safetensors")):
            return found[0]
        time.sleep(0.005)
    raise AssertionError(f"no checkpoint of the temporal stage appeared in {store}")


def test_few_frames_lie_between_the_command_and_the_tuning_loop(
    transfer_arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks = []

    def look(_self: StageLines, stage: str, _done: int, _total: int) -> None:
        if stage in ("spatial", "temporal"):
            stacks.append(traceback.extract_stack())

    monkeypatch.setattr(StageLines, "on_stage_progress", look)
    assert effivmt(*transfer_arguments("--store", tmp_path / "store", "--out", tmp_path / "out")).code == 0
    roots = tuple(str(Path(package.__file__).parent) for package in (effivmt_package, effivmt_flows, effivmt_tasks))
    for stack in stacks:
        ours = [frame.name for frame in stack if frame.filename.startswith(roots)]
        between = ours[ours.index("transfer") + 1 : len(ours) - 1 - ours[::-1].index("_tune")]
        assert 0 < len(between) <= 8, between  # one of them tunes each of a backbone's transformers
    assert len(stacks) == 6
