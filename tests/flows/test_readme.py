"""The Python of the README runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from effivmt_flows.cli.main import main

ROOT = Path(__file__).parents[2]


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_stock_diffusers_renders_with_an_adapter_as_the_readme_says(tmp_path: Path) -> None:
    (code,) = (text for text in snippets() if "load_lora_weights" in text)
    clip = (ROOT / "data/samples/zigzag.mp4", "--caption", "a red square", "--prompt", "a yellow star")
    where = ("--engine", "local", "--out", tmp_path / "out" / "demo", "--store", tmp_path / "store")
    few = [f"--set={name}=2" for name in ("spatial.steps", "temporal.steps")]
    assert main(["transfer", *map(str, (*clip, *where)), *few]) == 0
    (tmp_path / "data").symlink_to(ROOT / "data")
    ended = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-W", "error::FutureWarning", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    (picture,) = tmp_path.glob("*.gif")
    with Image.open(picture) as image:
        assert image.size == (64, 64) and image.n_frames > 40
