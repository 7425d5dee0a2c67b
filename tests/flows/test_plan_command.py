"""`effivmt plan` says what a clip takes and what will not fit, from the configs alone."""

import json
import shutil

import pytest
from command import effivmt


def test_a_plan_that_fits(backbone_folder):
    small = ("ingest.num_frames=17", "sampling.frames=9", "backbone.memory=12", f"backbone.path={backbone_folder}")
    ended = effivmt("plan", "--params", "tiny", *(f"--set={it}" for it in small))
    assert ended.code == 0, ended.err
    for stage in ("ingest", "text", "heads", "spatial", "temporal", "render"):
        assert f"│ {stage}" in ended.out
    assert "memory   12: 10.8 of 12 GiB for tensors; chosen: nothing" in ended.out
    assert "FAULT" not in ended.out and "TFLOP/s, measured here" in ended.out and "on the host" in ended.out


def test_settings_that_the_backbone_cannot_take_are_named():
    ended = effivmt("plan", "--params", "tiny", "--set=ingest.height=40")
    assert ended.code == 2 and "ingest.height is 40, which is not a multiple of 16" in ended.err


@pytest.mark.slow
def test_what_will_not_fit_is_told(backbone_folder, tmp_path):
    folder = shutil.copytree(backbone_folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors"))
    for part, changes in (("transformer", {"rope_max_seq_len": 1024}), ("vae", {"base_dim": 512})):
        config = folder / part / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    large = ["ingest.height=1536", "ingest.width=1536", "ingest.num_frames=9", "sampling.frames=9", "temporal.batch=1"]
    large += ["heads.query_rows=1", "spatial.steps=0", "render.baseline=false"]
    large += ["backbone.memory=12", f"backbone.path={folder}"]
    ended = effivmt("plan", "--params", "tiny", *(f"--set={it}" for it in large))
    assert ended.code == 1
    assert "FAULT    ingest needs" in ended.out and "does not fit" in ended.out
    assert "tiled decoding" in ended.out
