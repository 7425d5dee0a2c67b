"""A user's own tasks.py, flows/ and tasks/ in the working folder shadow none of our modules."""

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import get_args

from effivmt.embedded import EMBEDDED
from effivmt.pipeline.stages import MASK, STAGES

MODULES = (
    "effivmt_flows.cli.main",
    "effivmt_flows.catalog",
    "effivmt_flows.nightly",
    "effivmt_flows.serving",
    "effivmt_flows.transfer",
    "effivmt_tasks.cluster",
    "effivmt_tasks.tracking.recorder",
    "effivmt_tasks.tracking.registry",
)


def test_files_of_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    refusal = "raise SystemExit('a file of the user was imported')\n"
    (tmp_path / "tasks.py").write_text(refusal)
    for name in ("flows", "tasks", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(refusal)
    code = f"import {', '.join(MODULES)}; from effivmt.embedded import data_folder; print(data_folder())"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_the_command_is_installed() -> None:
    (script,) = (point for point in metadata.entry_points(group="console_scripts") if point.name == "effivmt")
    assert script.value == "effivmt_flows.cli.main:main"


def test_every_package_is_in_the_wheel() -> None:
    root = Path(__file__).parents[2]
    setup = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    for name, folder in setup["package-dir"].items():
        found = {path.parent.relative_to(root / folder) for path in (root / folder).rglob("__init__.py")}
        listed = {package for package in setup["packages"] if package.split(".")[0] == name}
        assert listed == {".".join((name, *package.parts)) for package in found}


def test_every_file_that_is_read_at_run_time_is_in_the_wheel() -> None:
    root = Path(__file__).parents[2]
    setup = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {"effivmt": ("presets", "report/templates"), "effivmt_data": (*EMBEDDED, "samples", "motionbench-mini")}
    for package, below in folders.items():
        base = root / setup["package-dir"][package]
        packed = {path for pattern in setup["package-data"][package] for path in base.glob(pattern)}
        needed = {path for name in below for path in (base / name).rglob("*") if path.is_file()}
        outside = {path for path in needed if path.suffix in (".py", ".pyc", ".lock") or path.name == ".gitignore"}
        assert needed - outside <= packed


def test_the_deployment_lists_every_stage() -> None:
    from effivmt_flows.nightly import Stage

    assert get_args(Stage) == (STAGES[0], MASK, *STAGES[1:])
