"""Damage in a store is met when the file is opened, told in one line, and made again; nothing made of it is kept."""

import json
import os
import shutil
from pathlib import Path

import pytest
from harm import HARMS, UNREAD, Ear, Made, contents, harm, outputs

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.errors import DamageError
from effivmt.pipeline.api import transfer
from effivmt.pipeline.workspace import Workspace
from effivmt.store.artifact import Artifact, Key
from effivmt.store.record import RECORD
from effivmt.store.store import Store

READ_BY = {
    ("ingest", "dense.safetensors"): "heads",
    ("ingest", "single.safetensors"): "spatial",
    ("ingest", "sampled.safetensors"): "temporal",
    ("ingest", "frames.safetensors"): "evaluate",
    ("ingest", "excerpt.json"): "spatial",
    ("ingest", "reconstruction.json"): "evaluate",
    ("text", "embedding.safetensors"): "heads",
    ("heads", "heads.parquet"): "spatial",
    ("heads", "heads.png"): "out",
    ("spatial", "spatial.safetensors"): "temporal",
    ("spatial", "losses.json"): "out",
    ("temporal", "adapter/adapter.json"): "render",
    ("temporal", "adapter/temporal.safetensors"): "render",
    ("temporal", "adapter/spatial.safetensors"): "render",
    ("temporal", "adapter/heads.parquet"): "render",
    ("temporal", "adapter/comfyui.safetensors"): "out",
    ("temporal", "adapter/README.md"): "out",
    ("temporal", "losses.json"): "out",
    ("render", "video.mp4"): "evaluate",
    ("evaluate", "metrics.json"): "out",
}
"""(stage, file) -> the stage that reads it, or `out`: it is read for the out folder alone."""
TOGETHER = (
    {("ingest", "dense.safetensors"), ("spatial", "losses.json"), ("temporal", "adapter/temporal.safetensors")},
    {("ingest", "single.safetensors"), ("temporal", "losses.json"), ("heads", "heads.png")},
    {("ingest", "sampled.safetensors"), ("heads", "heads.parquet"), ("render", "video.mp4")},
    {("ingest", "frames.safetensors"), ("spatial", "spatial.safetensors")},
    {("ingest", "excerpt.json"), ("evaluate", "metrics.json")},
    {("ingest", "reconstruction.json"), ("render", "video.mp4")},
    {("text", "embedding.safetensors"), ("temporal", "adapter/adapter.json"), ("evaluate", "metrics.json")},
)
"""Sets of files, at most one of an artifact, that are damaged at once."""


def artifacts(store: Path) -> list[Artifact]:
    """All artifacts of a store, as a hit gives them."""
    found = []
    for record in sorted(store.glob(f"*/*/{RECORD}")):
        artifact = Store(store).find(Key(**json.loads(record.read_bytes())["key"]))
        assert artifact is not None
        found.append(artifact)
    return found


def test_the_table_of_readers_is_whole(made: Made) -> None:
    written = {(artifact.stage, name) for artifact in artifacts(made.folder / "store") for name in artifact.files}
    assert written - {(stage, name) for stage, name in written if name in UNREAD} == READ_BY.keys()


@pytest.mark.parametrize("kind", HARMS)
def test_no_file_of_any_artifact_is_given_out_damaged(made: Made, tmp_path: Path, kind: str) -> None:
    tried = 0
    for artifact in artifacts(made.folder / "store"):
        for name in artifact.files:
            store = tmp_path / f"{tried}"
            shutil.copytree(artifact.path, store / artifact.stage / artifact.key)
            key = Key(**json.loads((artifact.path / RECORD).read_bytes())["key"])
            found = Store(store).find(key)
            assert found is not None and found.file(name).is_file()
            harm(found.path / name, kind)
            if kind == "flip":
                assert Store(store).find(key) == found  # a hit reads sizes alone
            with pytest.raises(DamageError, match=str(found.path / name)):
                found.file(name)
            assert Store(store).find(key) is None
            tried += 1
    assert tried > 20


@pytest.mark.parametrize("kind", HARMS)
@pytest.mark.parametrize("where", [RECORD, ""], ids=["record", "folder"])
def test_a_damaged_record_or_folder_is_no_hit(made: Made, tmp_path: Path, where: str, kind: str) -> None:
    if not where and kind in ("flip", "cut", "folder"):
        pytest.skip("of a folder there is no such damage")
    store = made.copy(tmp_path)
    for artifact in artifacts(store):
        key = Key(**json.loads((artifact.path / RECORD).read_bytes())["key"])
        if where:
            harm(artifact.path / where, kind)
        elif kind == "gone":
            shutil.rmtree(artifact.path)
        else:
            harm(artifact.path, kind)
        assert Store(store).find(key) is None


@pytest.mark.parametrize("damaged", TOGETHER, ids=lambda files: "+".join(sorted(name for _, name in files)))
def test_a_flipped_bit_never_reaches_a_result(
    made: Made, params: Params, clip: Clip, tmp_path: Path, damaged: set[tuple[str, str]]
) -> None:
    check_that_it_heals(made, params, clip, tmp_path, {file: "flip" for file in damaged})


@pytest.mark.slow
@pytest.mark.parametrize("kind", HARMS)
@pytest.mark.parametrize("file", READ_BY, ids="/".join)
def test_each_damage_of_each_file_alone(
    made: Made, params: Params, clip: Clip, tmp_path: Path, file: tuple[str, str], kind: str
) -> None:
    check_that_it_heals(made, params, clip, tmp_path, {file: kind})


def check_that_it_heals(
    made: Made, params: Params, clip: Clip, folder: Path, damages: dict[tuple[str, str], str]
) -> None:
    """Damages files of a copy of the store, and takes away the results of the stages that read them."""
    store, ear = made.copy(folder), Ear()
    before, paths = contents(store), set()
    for (stage, name), kind in damages.items():
        path = made.artifact(store, stage) / name
        harm(path, kind)
        if kind == "flip":  # all others are seen without reading the file
            paths.add(path)
    for reader in {READ_BY[file] for file in damages} - {"out"}:
        shutil.rmtree(made.artifact(store, reader))
    transfer(Workspace(Store(store), params, ear), clip, folder / "out")
    assert sorted(ear.damaged) == sorted(paths)
    assert contents(store) == before
    assert outputs(folder / "out") == made.outputs()
    again = Ear()
    transfer(Workspace(Store(store), params, again), clip, folder / "out")
    assert again.damaged == again.ran == []


def test_what_is_damaged_again_and_again_is_given_up(made: Made, params: Params, clip: Clip, tmp_path: Path) -> None:
    """As on a faulty disk: with one line, after three times."""
    store = made.copy(tmp_path)
    path = made.artifact(store, "heads") / "heads.png"

    class Disk(Ear):
        def on_stage_end(self, run) -> None:
            if run.stage == "heads":
                harm(path, "flip")

    disk = Disk()
    with pytest.raises(DamageError, match=r"heads\.png has changed"):
        transfer(Workspace(Store(store), params, disk), clip, tmp_path / "out")
    assert disk.damaged == [path, path]


def test_times_put_back_do_not_hide_a_change(made: Made, tmp_path: Path) -> None:
    (artifact, *_) = artifacts(made.copy(tmp_path))
    name = next(iter(artifact.files))
    path = artifact.file(name)
    os.utime(path, (0, 0))
    artifact.file(name)
    harm(path, "flip")
    os.utime(path, (0, 0))
    with pytest.raises(DamageError):
        artifact.file(name)
