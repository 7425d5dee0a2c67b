"""The command line: help at once, exit codes, one line for an error, and the commands for single files."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

import pytest
from command import CAPTION, PROMPTS, Ended, effivmt

from effivmt.evaluation.metrics import METRICS
from effivmt.media.video import read_frames
from effivmt.pipeline.transfer import StageRun
from effivmt.store.digests import sha256_file
from effivmt_flows.cli.main import main
from effivmt_flows.cli.progress import StageBars

DATA = Path(__file__).parents[2] / "data"

HEAVY = {"torch", "diffusers", "transformers", "prefect", "mlflow", "dvc", "numpy", "av", "cv2", "pydantic", "rich"}


def test_help_answers_at_once() -> None:
    script = "import sys; from effivmt_flows.cli.main import main; code = main(['--help']); "
    script += "print(*sys.modules); sys.exit(code)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 0
    assert all(command in ended.stdout for command in ("transfer", "render", "evaluate", "doctor"))
    assert not HEAVY & set(ended.stdout.splitlines()[-1].split())
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 1.0  # seconds of processor time


@pytest.mark.parametrize("command", ["transfer", "render", "evaluate", "doctor"])
def test_every_command_has_help(command: str) -> None:
    ended = effivmt(command, "--help")
    assert ended.code == 0
    assert "--params NAME|FILE" in ended.out and "--set SECTION.KEY=VALUE" in ended.out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "Usage"),
        (("transfer",), "VIDEO"),
        (("transfer", "a.mp4", "--caption", "c"), "--prompt"),
        (("fly",), "fly"),
        (("evaluate", "a.mp4", "b.mp4", "--prompt", "p", "--wings"), "--wings"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...], named: str) -> None:
    ended = effivmt(*arguments)
    assert ended.code == 2
    assert named in ended.err + ended.out


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--set", "temporal.wings=2"), "temporal.wings"),
        (("--set", "wings"), "wings"),
        (("--set", "temporal.rank=0"), "temporal.rank"),
        (("--params", "nowhere.yaml"), "nowhere.yaml"),
        (("--name", "a clip"), "--name"),
        (("--prompt", ""), "--prompt"),
        (("--end", "0"), "--end"),
        (("--force", "paint"), "--force paint"),
        (("--engine", "steam"), "--engine"),
        (("--region", "1,2,3"), "--region is '1,2,3'"),
        (("--motion-of", "camera", "--region", "0,0,9,9"), "the camera's motion has no region"),
    ],
)
def test_wrong_value_is_named(more: tuple[str, ...], named: str, transfer_arguments: Callable[..., list[str]]) -> None:
    ended = effivmt(*transfer_arguments(*more))
    assert ended.code == 2
    assert named in ended.err.splitlines()[-1]
    assert ended.out == ""


def test_missing_video_fails_in_one_line(transfer_arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    arguments = transfer_arguments("--quiet", "--out", tmp_path)
    arguments[1] = str(tmp_path / "gone.mp4")
    ended = effivmt(*arguments)
    assert ended.code == 1
    assert ended.err.count("\n") == 1 and "gone.mp4 does not exist" in ended.err
    assert ended.out == "" and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_is_one_line_whatever_was_written() -> None:
    told = StringIO()
    # Closing the file fails, too.
    with suppress(OSError), open("/dev/full", "w", buffering=1) as full, redirect_stdout(full), redirect_stderr(told):
        code = main(["bench", "--list"])
    assert code == 1
    assert told.getvalue().startswith("error: the disk is full; free some space (OSError: [Errno 28] No space left")
    assert told.getvalue().count("\n") == 1


def test_clip_id_comes_from_the_file_name(
    transferred: Ended, transfer_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    arguments = transfer_arguments("--out", tmp_path, "--quiet")
    link = tmp_path / "my zig zag (1).mp4"
    link.symlink_to(arguments[1])
    arguments[1] = str(link)
    ended = effivmt(*arguments)
    assert (ended.code, ended.out, ended.err) == (0, f"{tmp_path / 'my-zig-zag-1'}\n", "")
    assert (tmp_path / "my-zig-zag-1" / "video-1.mp4").is_file()


def test_render_without_strength_is_the_backbone_alone(project: Path, transferred: Ended, tmp_path: Path) -> None:
    common = ("--params", project / "params.yaml", "--store", project / "store", "--prompt", PROMPTS[0], "--quiet")
    render = ("render", project / "out" / "zigzag" / "adapter", *common)
    still, full = tmp_path / "new" / "still.mp4", tmp_path / "full.mp4"
    assert effivmt(*render, "--appearance", 0, "--motion", 0, "--out", still).out == f"{still}\n"
    assert effivmt(*render, "--out", full).code == 0
    assert full.read_bytes() == (project / "out" / "zigzag" / "video-1.mp4").read_bytes()
    without = {sha256_file(path) for path in (project / "store" / "render").glob("*/video.mp4")}
    assert sha256_file(still) in without - {sha256_file(full)}
    assert read_frames(still)[0].shape == (17, 32, 32, 3)
    seeded = tmp_path / "seeded.mp4"
    assert effivmt(*render, "--seed", 5, "--out", seeded).code == 0
    assert seeded.read_bytes() not in (full.read_bytes(), still.read_bytes())


def test_adapters_add_up(project: Path, transferred: Ended, tmp_path: Path) -> None:
    common = ("--params", project / "params.yaml", "--store", project / "store")
    prompt, adapter = ("--prompt", PROMPTS[0], "--quiet"), project / "out" / "zigzag" / "adapter"
    halves = ("--motion", 0.5, "--motion", 0.5, "--appearance", 0.25)
    both, merged, again = tmp_path / "both.mp4", tmp_path / "merged", tmp_path / "again.mp4"
    assert effivmt("render", adapter, adapter, *halves, *common, *prompt, "--out", both).code == 0
    whole = read_frames(project / "out" / "zigzag" / "video-1.mp4")[0].astype(int)
    assert abs(read_frames(both)[0] - whole).mean() < 0.5  # 2 * 0.5 of one adapter is the adapter
    ended = effivmt("merge", adapter, adapter, *halves, *common, "--out", merged)
    assert (ended.code, ended.out) == (0, f"{merged}\n")
    strengths = ("--motion", 1, "--appearance", 1)
    assert effivmt("render", merged, *strengths, *common, *prompt, "--out", again).code == 0
    assert again.read_bytes() == both.read_bytes()
    used = effivmt("merge", adapter, adapter, *common, "--out", merged)
    assert used.code == 1 and f"--out {merged} is in use" in used.err
    thrice = ("--motion", 1, "--motion", 1, "--motion", 1)
    ended = effivmt("merge", adapter, adapter, *thrice, *common, "--out", tmp_path / "c")
    assert ended.code == 2 and "--motion is given 3 times for 2 adapters" in ended.err
    ended = effivmt("merge", adapter, *common, "--out", tmp_path / "c")
    assert ended.code == 1 and "expected two or more" in ended.err and not (tmp_path / "c").exists()


def test_an_adapter_of_an_object_acts_in_its_region(
    project: Path, transferred: Ended, transfer_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    common = ("--params", project / "params.yaml", "--store", project / "store")
    prompt, adapter = ("--prompt", PROMPTS[0], "--quiet"), project / "out" / "zigzag" / "adapter"
    chosen = ("--motion-of", "object", "--out", tmp_path, "--name", "thing")
    assert effivmt(*transfer_arguments(*chosen, prompts=PROMPTS[:1])).code == 0
    thing, videos = tmp_path / "thing" / "adapter", [tmp_path / f"{number}.mp4" for number in range(4)]
    for given, video in zip(
        ((adapter, thing), (thing, adapter), (thing, thing), (thing, "--motion", 1)), videos, strict=True
    ):
        ended = effivmt("render", *given, *common, *prompt, "--out", video)
        assert ended.code == 0, ended.err
    joined, swapped, things, alone = (video.read_bytes() for video in videos)
    assert alone == (tmp_path / "thing" / "video-1.mp4").read_bytes() and joined == swapped
    assert len({joined, things, alone}) == 3
    keys = [json.loads(path.read_text())["key"] for path in (project / "store" / "render").glob("*/artifact.json")]
    strengths = sorted(len(key["params"].get("regional", ())) for key in keys if "regional" in key["params"])
    assert strengths == [1, 2]
    digest = json.loads((thing / "adapter.json").read_text())["files"]["region.safetensors"]
    assert [key["inputs"]["regional_1_region.safetensors"] for key in keys if "regional" in key["params"]] == [
        digest
    ] * 2

    ended = effivmt("merge", adapter, thing, *common, "--out", tmp_path / "sum")
    assert ended.code == 0 and not (tmp_path / "sum" / "region.safetensors").exists()
    assert ended.err == f"{thing}: the region is left out, a sum has none; render adapters together to use it\n"
    assert effivmt("render", tmp_path / "sum", *common, *prompt, "--out", videos[0]).code == 0
    assert videos[0].read_bytes() != joined


def test_render_refuses_what_it_cannot_do(project: Path, tmp_path: Path) -> None:
    common = ("--params", project / "params.yaml", "--store", project / "store", "--prompt", "p", "--quiet")
    ended = effivmt("render", tmp_path, *common, "--out", tmp_path / "a.mp4")
    assert ended.code == 1 and "is no adapter folder" in ended.err and ended.err.count("\n") == 1
    ended = effivmt("render", tmp_path, *common, "--out", tmp_path / "a.avi")
    assert ended.code == 2 and "--out" in ended.err


def test_evaluate_measures_two_files(project: Path, transferred: Ended, sample_video: Path) -> None:
    folder, params = project / "out" / "zigzag", ("--params", project / "params.yaml", "--prompt", PROMPTS[0])
    own = effivmt("evaluate", folder / "reference.mp4", folder / "reference.mp4", *params, "--json")
    other = effivmt("evaluate", folder / "reference.mp4", folder / "video-1.mp4", *params, "--json")
    assert own.code == other.code == 0 and own.err == ""
    own, other = json.loads(own.out), json.loads(other.out)
    assert own["motion_fidelity"] > 0.99 > other["motion_fidelity"]
    assert own["trajectory_error"] < 0.001 < other["trajectory_error"]
    assert own["sharpness"] == 1.0 > other["sharpness"] > 0 and other["flicker"] > 0
    assert own["reference_resemblance"] == pytest.approx(1.0, abs=1e-5)
    table = effivmt("evaluate", folder / "reference.mp4", folder / "video-1.mp4", *params)
    assert "Motion fidelity" in table.out and f"{other['motion_fidelity']:.3f}" in table.out
    gone = effivmt("evaluate", folder / "reference.mp4", folder / "gone.mp4", *params)
    assert gone.code == 1 and "gone.mp4" in gone.err and gone.err.count("\n") == 1


def test_evaluate_asks_for_the_caption_where_a_metric_needs_it(project: Path, transferred: Ended) -> None:
    folder, params = project / "out" / "zigzag", ("--params", project / "params.yaml", "--prompt", PROMPTS[0], "--json")
    video = ("evaluate", folder / "reference.mp4", folder / "video-1.mp4", *params)
    captions = ((), ("--caption", PROMPTS[0]), ("--caption", CAPTION))
    without, same, own = (json.loads(effivmt(*video, *more).out) for more in captions)
    of_stages = {"background_leakage", "reconstruction_psnr"}  # this clip's ground is plain; files have no latents
    assert set(METRICS) - set(without) == {"appearance_leakage"} | of_stages
    assert same["appearance_leakage"] == 0.0 != own["appearance_leakage"]
    rows = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["results"]
    assert rows[0]["adapter"]["appearance_leakage"] == pytest.approx(own["appearance_leakage"], abs=1e-5)
    assert set(METRICS) - set(rows[0]["adapter"]) == {"background_leakage"}


def test_evaluate_sees_a_ground_that_leaks(project: Path) -> None:
    videos = DATA / "motionbench-mini" / "videos"
    striped, plain = videos / "human-motion-lunging.mp4", videos / "human-motion-bowing.mp4"
    common = ("--params", project / "params.yaml", "--prompt", "a person", "--json")
    copied, clean = (json.loads(effivmt("evaluate", striped, it, *common).out) for it in (striped, plain))
    assert copied["background_leakage"] > 0.99 and abs(clean["background_leakage"]) < 0.1


def test_bars_show_how_far_a_stage_is() -> None:
    with redirect_stderr(StringIO()) as shown, StageBars() as bars:
        bars.on_stage_start("temporal")
        bars.on_stage_progress("temporal", 3, 12)
        bars.on_stage_start("render")
        bars.on_stage_end(StageRun("render", (), 0.1))
    lines = shown.getvalue().splitlines()
    assert any("temporal" in line and "3/12" in line and "left" in line for line in lines)
    assert any("render" in line and "hit" in line for line in lines)
