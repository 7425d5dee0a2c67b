"""The doctor: all is well on a sound installation; each fault is found, named and given a remedy."""

import re
import shutil
from pathlib import Path

import pytest
from command import effivmt

from effivmt.config import Params
from effivmt.errors import BackboneError
from effivmt_flows.cli.doctor import check_backbone, check_folder, check_space, check_versions


def test_sound_installation(project: Path, tmp_path: Path) -> None:
    ended = effivmt("doctor", "--params", project / "params.yaml", "--store", tmp_path / "store")
    lines = {line.split(":")[0].split(maxsplit=1)[1]: line.split()[0] for line in ended.out.splitlines()}
    expected = {"python", "torch", "prefect", "mlflow", "packages", "ffmpeg", "machine", "gpu", "params", "backbone"}
    assert lines.keys() >= expected | {"scorer", "store", "disk", "prefect server", "mlflow runs", "proxies"}
    assert [name for name, mark in lines.items() if mark != "OK" and name != "disk"] == []
    assert ended.code == (1 if lines["disk"] == "FAULT" else 0)
    assert list(tmp_path.iterdir()) == []  # looking changes nothing


def test_wrong_params_and_server_are_faults(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    ended = effivmt("doctor", "--params", project / "params.yaml", "--set", "temporal.wings=2", "--store", tmp_path)
    faults = [line for line in ended.out.splitlines() if line.startswith("FAULT")]
    assert ended.code == 1
    assert any("temporal.wings" in line for line in faults)
    assert any("http://127.0.0.1:9 does not answer" in line for line in faults)


def test_versions_outside_the_ranges() -> None:
    requirements = ["torch==0.1; extra == 'full'", "numpy>=1", "no-such-package>=2", "pytest<1; extra == 'dev'"]
    checks = {check.name: check for check in check_versions(requirements, ">=4")}
    assert [name for name, check in checks.items() if not check.ok] == ["python", "torch", "no-such-package"]
    assert 'pip install "torch==0.1"' in checks["torch"].text
    assert checks["packages"].text == "1 others as required"


def test_damaged_backbone(backbone_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(backbone_folder, tmp_path / "backbone")
    params = Params.model_validate({"backbone": {"path": str(folder)}})
    assert check_backbone(params).ok
    weights = next((folder / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BackboneError, match=re.escape(str(weights))):
        check_backbone(params)


def test_backbone_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("no/such/folder", "no-such-owner/no-such-model"):
        check = check_backbone(Params.model_validate({"backbone": {"path": path}}))
        assert not check.ok and path in check.text


def test_folder_and_space(tmp_path: Path) -> None:
    assert check_folder("store", tmp_path / "new" / "store").ok
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert not check_folder("store", tmp_path / "link" / "store").ok
    (tmp_path / "file").touch()
    assert not check_folder("store", tmp_path / "file" / "store").ok
    assert check_space(tmp_path / "new", 1).ok
    assert not check_space(tmp_path / "new", 2**70).ok
