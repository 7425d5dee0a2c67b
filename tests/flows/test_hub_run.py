"""A run with a backbone of the hub: a dry run fetches no weights; the commit is recorded; an equal commit is a hit."""

import json
import shutil
from pathlib import Path

from command import effivmt

NAME, FIRST, SECOND = "somebody/wan", "1" * 40, "2" * 40


def test_run_of_a_hub_id(hub, project: Path, sample_video: Path, backbone_folder: Path, tmp_path: Path) -> None:
    hub.publish(NAME, backbone_folder, FIRST, "v1")
    shutil.copy(sample_video, tmp_path / "a.mp4")
    catalog = tmp_path / "c.csv"
    catalog.write_text("clip,video,caption,prompts\none,a.mp4,a red square,a green circle\n", encoding="utf-8")
    options = ["--params", project / "params.yaml", "--set", f"backbone.path={NAME}", "--store", tmp_path / "store"]
    options += ["--out", tmp_path / "out", "--engine", "local", "--quiet"]

    planned = effivmt("run", catalog, "--dry-run", *options)
    assert planned.code == 0 and "never computed" in planned.out and hub.weights == []
    ended = effivmt("run", catalog, "--set", "backbone.revision=v1", *options)
    assert ended.code == 0 and len(hub.weights) == 3, ended.err
    for record in ("transfer.json", "adapter/adapter.json"):
        backbone = json.loads((tmp_path / "out" / "one" / record).read_text(encoding="utf-8"))["backbone"]
        assert (backbone["id"], backbone["commit"]) == (NAME, FIRST) and len(backbone["transformer"]) == 64

    second = Path(shutil.copytree(backbone_folder, tmp_path / "second"))
    (second / "README.md").write_text("a model card", encoding="utf-8")
    hub.publish(NAME, second, SECOND)
    planned = effivmt("run", catalog, "--dry-run", *options)
    assert planned.code == 0 and "never computed" not in planned.out and "evaluate" in planned.out
    assert len(hub.weights) == 3

    wrong = effivmt("run", catalog, "--dry-run", *options, "--set", "ingest.height=40")
    assert wrong.code == 2 and "ingest.height is 40, which is not a multiple of 16" in wrong.err
    wrong = effivmt("run", catalog, *options, "--set", "backbone.revision=v9")
    assert wrong.code == 1 and "backbone somebody/wan has no revision 'v9'" in wrong.err
