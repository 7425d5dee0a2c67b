"""Pulling from a store that gives other files than were registered, and from one that is in order."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from changing import change, renamed
from loopback import Gate, Server
from mlflow.tracking import MlflowClient

from effivmt.errors import EffiVMTError
from effivmt.store.digests import sha256_file
from effivmt_flows.cli.main import main
from effivmt_tasks.tracking.folders import read_tracked
from effivmt_tasks.tracking.pull import pull, pull_to_cache
from effivmt_tasks.tracking.runs import track_folder

REFERENCE = "models:/effivmt-stored@champion"


@pytest.fixture(scope="module")
def adapter(server: Server, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter folder of a registered clip."""
    folder = renamed(made / "out/left", tmp_path_factory.mktemp("stored"), "stored")
    track_folder(MlflowClient(tracking_uri=server.uri), server.uri, folder)
    return folder / "adapter"


@pytest.fixture
def stored(adapter: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same folder in the server's artifact store; what a test does to it is undone."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    run_id = read_tracked(adapter.parent).run_id
    (folder,) = server.artifacts.glob(f"*/{run_id}/artifacts/model/artifacts/adapter")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(adapter, folder)


def _both(folder: Path) -> None:
    """Changes the weights and adapter.json alike."""
    (folder / "temporal.safetensors").write_bytes((folder / "spatial.safetensors").read_bytes())
    digest = sha256_file(folder / "temporal.safetensors")
    change(folder / "adapter.json", lambda facts: facts["files"].update({"temporal.safetensors": digest}))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "emptied": (lambda folder: [path.unlink() for path in folder.iterdir()], "moved or emptied|cannot be fetched"),
    "moved": (lambda folder: folder.rename(folder.with_name("elsewhere")), "moved or emptied|cannot be fetched"),
    "one missing": (lambda folder: (folder / "temporal.safetensors").unlink(), "temporal.safetensors is missing"),
    "changed": (lambda folder: (folder / "README.md").write_text("?"), "README.md is damaged"),
    "all changed": (_both, "digest of adapter.json differs"),
    "one more": (lambda folder: (folder / "more.bin").write_text("?"), "more.bin is none of its files"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_store_that_gives_other_files(fault: str, stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spoil, expected = FAULTS[fault]
    spoil(stored)
    code = main(["pull", REFERENCE, "--out", str(tmp_path / "got")])
    error = capsys.readouterr().err
    assert code == 1 and error.startswith(f"error: {REFERENCE}") and len(error.splitlines()) == 1
    assert any(part in error for part in expected.split("|"))
    assert list(tmp_path.iterdir()) == []


def test_pulled_twice(adapter: Path, stored: Path, tmp_path: Path) -> None:
    folder = pull(REFERENCE, tmp_path / "deep/got")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in adapter.iterdir()
    }
    shutil.rmtree(stored)  # what is here already is not asked for again
    assert pull("models:/effivmt-stored/1", folder) == folder
    (folder / "README.md").write_text("mine")
    with pytest.raises(EffiVMTError, match="is in use"):
        pull(REFERENCE, folder)
    assert (folder / "README.md").read_text() == "mine"


def test_damaged_cache_is_filled_again(adapter: Path, stored: Path, tmp_path: Path) -> None:
    folder = pull_to_cache(REFERENCE, tmp_path / "pulled")
    assert folder.name == sha256_file(adapter / "adapter.json")
    (folder / "README.md").write_text("mine")
    assert pull_to_cache(REFERENCE, tmp_path / "pulled") == folder
    assert (folder / "README.md").read_bytes() == (adapter / "README.md").read_bytes()


@pytest.mark.parametrize("size", [300, 3000, 8000, 30_000])
def test_server_that_goes_in_the_middle(
    server: Server,
    stored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    size: int,
) -> None:
    """After this many bytes, of the answers of the registry or of a file."""
    gate = Gate(server, after=size)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", gate.uri)
    assert main(["pull", REFERENCE, "--out", str(tmp_path / "got")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1 and "MLflow" in error
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_pull_has_left_goes(stored: Path, tmp_path: Path) -> None:
    stale, busy = tmp_path / ".got.pulled-1", tmp_path / ".got.pulled-2"
    for folder in (stale, busy):
        folder.mkdir()
        (folder / "temporal.safetensors").touch()
    lock = os.open(busy, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # as the pull that is at work there
    pull(REFERENCE, tmp_path / "got")
    os.close(lock)
    assert {path.name for path in tmp_path.iterdir()} == {"got", ".got.pulled-2"}


@pytest.mark.parametrize(
    ("reference", "code", "expected"),
    [
        ("models:/effivmt-stored@best", 1, "cannot be fetched from MLflow"),
        ("models:/effivmt-stored/9", 1, "version=9"),
        ("models:/effivmt-stored", 2, "expected models:/NAME@ALIAS or models:/NAME/VERSION"),
    ],
)
def test_what_the_registry_does_not_know(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture, reference: str, code: int, expected: str
) -> None:
    assert main(["pull", reference, "--out", str(tmp_path / "got")]) == code
    assert expected in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:///mlflow.db"])
def test_no_registry(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main(["pull", REFERENCE, "--out", "got"]) == 1
    assert "MLFLOW_TRACKING_URI" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_pulling_imports_nothing_heavy() -> None:
    code = "import sys, effivmt_tasks.tracking.pull, mlflow.artifacts, mlflow.tracking\n"
    code += "print({'torch', 'prefect', 'diffusers', 'peft'} & sys.modules.keys())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
