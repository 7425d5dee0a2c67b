"""A registered adapter of a backbone with two transformers renders both, and only with such a backbone."""

import json
from pathlib import Path

import mlflow.pyfunc
import pytest

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import ParamsError
from effivmt.pipeline.api import transfer
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store
from effivmt_tasks.tracking.registry import save_model

PROMPT = "a green circle on a gray background"


@pytest.mark.slow
def test_pyfunc_gives_the_videos_of_the_run(
    tiny_params: Params,
    a14b_folder: Path,
    backbone_folder: Path,
    sample_video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree = tiny_params.model_dump()
    tree["backbone"]["path"] = str(a14b_folder)
    tree["heads"]["noise_levels"] = [0.5, 0.9]
    tree["render"] |= {"baseline": False, "guidance_scale_2": 2.0}
    work = Workspace(Store(tmp_path / "store"), Params.model_validate(tree))
    clip = Clip(clip="zigzag", video=sample_video, caption="a red square", prompts=(PROMPT,))
    _, outputs = transfer(work, clip, tmp_path / "out")
    save_model(tmp_path / "model", outputs.adapter, json.loads(outputs.record.read_text())["params"])
    (video,) = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict([PROMPT])
    assert video == outputs.videos[0].read_bytes()
    monkeypatch.setenv("EFFIVMT_BACKBONE", str(backbone_folder))
    with pytest.raises(ParamsError, match=r"guidance_scale_2 is 2\.0 but backbone wan-random has one transformer"):
        mlflow.pyfunc.load_model(str(tmp_path / "model"))
