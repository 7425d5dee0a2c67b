"""One whole transfer on the tiny models, to be damaged, stopped or starved of space in copies."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harm import Made
from small_disk import SmallDisk

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.pipeline.api import transfer
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store


@pytest.fixture
def clip(clip) -> Clip:
    """With one prompt."""
    return clip.model_copy(update={"prompts": clip.prompts[:1]})


@pytest.fixture
def params(params) -> Params:
    """With pixel sampling, whose ingest artifact has all files that there are."""
    return params.model_copy(update={"sampling": params.sampling.model_copy(update={"mode": "pixel"})})


@pytest.fixture(scope="session")
def made_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trust")


@pytest.fixture
def made(made_folder: Path, params: Params, clip: Clip) -> Made:
    """The transfer's store and out folder, which no test changes; made by the first test that asks."""
    result, _ = transfer(Workspace(Store(made_folder / "store"), params), clip, made_folder / "out")
    return Made(made_folder, result)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of one page; only root may make one."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = SmallDisk(tmp_path / "disk")
    try:
        small.mount()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this system mounts no tmpfs ({error})")
    yield small
    small.unmount()
