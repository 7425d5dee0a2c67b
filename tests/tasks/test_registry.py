"""Registered adapters on a real server: versions, aliases, and what becomes of them in fresh processes."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow.pyfunc
import pandas
import pytest
import torch
from changing import PROMPTS, change, remeasured, renamed, retuned
from diffusers import WanPipeline
from loopback import Server
from mlflow.tracking import MlflowClient

from effivmt.config import Params
from effivmt.errors import AdapterError, ParamsError
from effivmt.store.digests import sha256_file
from effivmt_tasks.tracking.folders import TrackedRun
from effivmt_tasks.tracking.pull import pull
from effivmt_tasks.tracking.runs import track_folder

RENDERING = """
import os, sys, mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
for name, prompts, params in (("two", sys.argv[3:], None), ("still", sys.argv[3], {"motion_strength": 0.0, "seed": 0})):
    for number, video in enumerate(model.predict(prompts, params=params), 1):
        open(f"{sys.argv[2]}/{name}-{number}.mp4", "wb").write(video)
os.environ["EFFIVMT_BACKBONE"] = sys.argv[2]
mlflow.pyfunc.load_model(sys.argv[1])
"""


@pytest.fixture
def client(server: Server) -> MlflowClient:
    """A client of the server."""
    return MlflowClient(tracking_uri=server.uri)


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Alias -> version, as text."""
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def test_version_says_what_it_is(client: MlflowClient, server: Server, made: Path, tmp_path: Path) -> None:
    folder = renamed(made / "out/left", tmp_path, "card")
    note = track_folder(client, server.uri, folder)
    version = client.get_model_version_by_alias("effivmt-card", "champion")
    assert (note.model, note.version, note.run_id) == ("effivmt-card", "1", version.run_id)
    assert version.description == (folder / "adapter/README.md").read_text(encoding="utf-8")
    assert version.tags["adapter_sha256"] == sha256_file(folder / "adapter/adapter.json")
    assert version.tags["caption"] == "a red square" and len(version.tags["backbone_digest"]) == 64
    means = client.get_run(version.run_id).data.metrics
    for metric in ("mean/foreground_motion_fidelity", "mean/without_adapter/trajectory_error"):
        assert float(version.tags[metric]) == pytest.approx(means[metric])
    assert version.tags["code"]


def test_same_bytes_make_no_second_version(client: MlflowClient, server: Server, made: Path, tmp_path: Path) -> None:
    folder = renamed(made / "out/left", tmp_path, "same")
    first = track_folder(client, server.uri, folder)
    (folder / "tracked.json").unlink()  # as in an out folder that was made anew
    assert track_folder(client, server.uri, folder) == first
    remeasured(folder, [0.25, 0.75])  # as with other prompts: another run, the same adapter
    again = track_folder(client, server.uri, folder)
    assert again.run_id != first.run_id and again.version == "1"
    (version,) = client.search_model_versions("name = 'effivmt-same'")
    assert version.tags["mean/foreground_motion_fidelity"] == "0.5"


def test_another_video_of_the_same_id_has_a_model_of_its_own(
    client: MlflowClient, server: Server, made: Path, tmp_path: Path
) -> None:
    first = renamed(made / "out/left", tmp_path / "a", "twin")
    assert track_folder(client, server.uri, first).model == "effivmt-twin"
    other = renamed(made / "out/left", tmp_path / "b", "twin")
    change(other / "transfer.json", lambda run: run["video"].update(sha256="0123456789abcdef" * 4))
    retuned(other, "other")
    for version in ("1", "2"):
        note = track_folder(client, server.uri, other)
        assert (note.model, note.version) == ("effivmt-twin-01234567", version)
        retuned(other, "again")
    assert track_folder(client, server.uri, first).model == "effivmt-twin"


@pytest.mark.parametrize("wrong", [{"motion_strength": -1.0}, {"appearance_strength": 5.0}, {"stength": 1.0}])
def test_pyfunc_refuses_wrong_params(wrong: dict[str, float]) -> None:
    from effivmt_tasks.tracking.pyfunc_model import MotionAdapter

    model = MotionAdapter()
    model._work = SimpleNamespace(params=Params())
    with pytest.raises(ParamsError, match="params are wrong"):
        model.predict(None, pandas.DataFrame(["a star"]), wrong)


def test_a_damaged_adapter_is_not_registered(client: MlflowClient, server: Server, made: Path, tmp_path: Path) -> None:
    folder = renamed(made / "out/left", tmp_path, "damaged")
    path = folder / "adapter/temporal.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(AdapterError, match=r"temporal\.safetensors is damaged .*the next run of the clip writes its"):
        track_folder(client, server.uri, folder)
    assert not client.search_model_versions("name = 'effivmt-damaged'")
    assert not (folder / "transfer.json").exists()  # so the next run finds the folder out of date


def test_champion_gives_way_only_to_a_better_version(
    client: MlflowClient, server: Server, made: Path, tmp_path: Path
) -> None:
    folder = renamed(made / "out/left", tmp_path, "rank")

    def version(word: str, values: list[float] | None) -> dict[str, str]:
        retuned(folder, word)
        remeasured(folder, values)
        track_folder(client, server.uri, folder)
        return aliases(client, "effivmt-rank")

    assert version("not measured", None) == {"challenger": "1"}
    assert version("first", [0.4, 0.6]) == {"challenger": "1", "champion": "2"}
    assert version("equal", [0.6, 0.4]) == {"challenger": "3", "champion": "2"}
    assert version("not measured either", None) == {"challenger": "4", "champion": "2"}
    assert version("better", [0.5, 0.51]) == {"challenger": "4", "champion": "5"}
    remeasured(folder, [0.1, 0.1])  # the champion itself, on other prompts
    track_folder(client, server.uri, folder)
    assert aliases(client, "effivmt-rank") == {"challenger": "4", "champion": "5"}
    assert version("better than that", [0.2, 0.2]) == {"challenger": "4", "champion": "6"}


def test_challenger_that_turns_out_better(client: MlflowClient, server: Server, made: Path, tmp_path: Path) -> None:
    folder = renamed(made / "out/left", tmp_path, "late")
    remeasured(folder, [0.5, 0.5])
    track_folder(client, server.uri, folder)
    retuned(folder, "second")
    remeasured(folder, [0.4, 0.4])
    track_folder(client, server.uri, folder)
    assert aliases(client, "effivmt-late") == {"champion": "1", "challenger": "2"}
    remeasured(folder, [0.6, 0.6])
    track_folder(client, server.uri, folder)
    assert aliases(client, "effivmt-late") == {"champion": "2"}


@pytest.fixture(scope="module")
def registered(server: Server, made: Path, tmp_path_factory: pytest.TempPathFactory) -> TrackedRun:
    """The clip `left` in the registry."""
    folder = renamed(made / "out/left", tmp_path_factory.mktemp("registered"), "film")
    return track_folder(MlflowClient(tracking_uri=server.uri), server.uri, folder)


def test_pyfunc_renders_in_a_fresh_process(registered: TrackedRun, server: Server, made: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", RENDERING, "models:/effivmt-film@champion", str(tmp_path), *PROMPTS]
    environment = os.environ | {"MLFLOW_TRACKING_URI": server.uri}
    for name in ("tasks.py", "flows.py"):  # a user's own files
        (tmp_path / name).write_text("raise SystemExit('a file of the user was imported')", encoding="utf-8")
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    for number in (1, 2):  # the very bytes that the transfer gave
        assert (tmp_path / f"two-{number}.mp4").read_bytes() == (made / f"out/left/video-{number}.mp4").read_bytes()
    assert (tmp_path / "still-1.mp4").read_bytes() != (tmp_path / "two-1.mp4").read_bytes()
    assert ended.returncode == 1 and "set EFFIVMT_BACKBONE to" in ended.stderr.splitlines()[-1]  # its last load


def test_version_of_0_1_says_how_to_register_it_again(
    client: MlflowClient, server: Server, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pyfunc code is that of version 0.1; rendering with it goes on, and a new run registers it anew."""
    folder = renamed(made / "out/left", tmp_path, "old")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    track_folder(client, server.uri, folder)
    version = client.get_model_version_by_alias("effivmt-old", "champion")
    (stored,) = server.artifacts.glob(f"*/{version.run_id}/artifacts/model")
    (code,) = stored.glob("*.py")
    code.write_text((Path(__file__).parent / "registered" / "pyfunc_model_0_1.py").read_text(encoding="utf-8"))
    client.delete_model_version_tag("effivmt-old", "1", "interface")

    with pytest.raises(ImportError, match=r"registered by EffiVMT 0\.1.* run its catalog or transfer again"):
        mlflow.pyfunc.load_model("models:/effivmt-old@champion")
    assert pull("models:/effivmt-old@champion", tmp_path / "pulled") == tmp_path / "pulled"

    (folder / "tracked.json").unlink()
    assert track_folder(client, server.uri, folder).version == "2"
    assert aliases(client, "effivmt-old") == {"champion": "2"}
    mlflow.pyfunc.load_model("models:/effivmt-old@champion")


def test_pulled_adapter_works_in_stock_diffusers(
    registered: TrackedRun, server: Server, backbone_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "adapter"
    command = [sys.executable, "-c", "import sys; from effivmt_flows.cli.main import main; sys.exit(main())"]
    command += ["pull", "models:/effivmt-film/1", "--out", str(out)]
    environment = os.environ | {"MLFLOW_TRACKING_URI": server.uri}
    pulled = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (pulled.returncode, pulled.stdout, pulled.stderr) == (0, f"{out}\n", "")
    pipeline = WanPipeline.from_pretrained(backbone_folder)
    pipeline.set_progress_bar_config(disable=True)
    before = _latents(pipeline)
    for branch, name in (("spatial", "appearance"), ("temporal", "motion")):
        pipeline.load_lora_weights(str(out), weight_name=f"{branch}.safetensors", adapter_name=name)
    pipeline.set_adapters(["appearance", "motion"], [1.0, 1.0])
    after = _latents(pipeline)
    pipeline.disable_lora()
    assert not torch.equal(before, after) and torch.equal(before, _latents(pipeline))


def _latents(pipeline: WanPipeline) -> torch.Tensor:
    return pipeline(
        prompt=PROMPTS[0],
        height=32,
        width=32,
        num_frames=5,
        num_inference_steps=1,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).frames
