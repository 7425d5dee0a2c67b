"""A registered adapter makes images move, which come to it in base64."""

import base64
import json
import shutil
from pathlib import Path

import mlflow.pyfunc
import pytest

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import ParamsError
from effivmt.media.video import write_image
from effivmt.pipeline.api import transfer
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store
from effivmt.world.scenes import draw_clip
from effivmt_tasks.tracking.registry import save_model


def test_pyfunc_gives_the_videos_of_the_run(
    tiny_params: Params, backbone_folder: Path, sample_video: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(backbone_folder, tmp_path / "first-frame"))
    index = json.loads((folder / "model_index.json").read_text()) | {"_first_frame": True}
    (folder / "model_index.json").write_text(json.dumps(index))
    write_image(tmp_path / "a.png", draw_clip(5, 3, kinds={"object": 1.0}, num_frames=17).frames[0])
    write_image(tmp_path / "b.png", draw_clip(5, 4, kinds={"object": 1.0}, num_frames=17).frames[0])
    tree = tiny_params.model_dump()
    tree["backbone"]["path"] = str(folder)
    tree["sampling"]["mode"] = "dense"
    tree["render"] |= {"baseline": False}
    work = Workspace(Store(tmp_path / "store"), Params.model_validate(tree))
    images = (tmp_path / "a.png", tmp_path / "b.png")
    clip = Clip(clip="zigzag", video=sample_video, caption="a red square", images=images)
    _, outputs = transfer(work, clip, tmp_path / "out")
    save_model(tmp_path / "model", outputs.adapter, json.loads(outputs.record.read_text())["params"])
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    given = [base64.b64encode(image.read_bytes()).decode() for image in images]
    assert model.predict(["", ""], params={"images": given}) == [video.read_bytes() for video in outputs.videos]
    (plain,) = model.predict(["a star"])
    assert plain not in [video.read_bytes() for video in outputs.videos]
    with pytest.raises(ParamsError, match="is no base64"):
        model.predict([""], params={"images": ["no image"]})
    with pytest.raises(ParamsError, match="there are 2 images for 1 prompt"):
        model.predict([""], params={"images": given})
