"""The benchmark compares image to video and a part of the motion, and says which method cannot make them."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from effivmt.benchmark import runner
from effivmt.benchmark.cells import Job, JobResult, run_job
from effivmt.benchmark.delivery import write_comparison
from effivmt.benchmark.finished import FinishedJobs
from effivmt.benchmark.methods import METHODS, OURS, lack
from effivmt.benchmark.peers import PEERS, peer_params
from effivmt.benchmark.results import RunInfo
from effivmt.catalog import Catalog, Clip
from effivmt.config import Params
from effivmt.errors import CatalogError
from effivmt.media.video import read_image, write_image
from effivmt.pipeline import stages
from effivmt.pipeline.workspace import LoadedBackbone, Workspace
from effivmt.store.store import Store

ABOUT = RunInfo("tiny", "wan-random", "0" * 64, "0.1.0", "abc123", 1, {"seed": 0})
COMPARED = (OURS, "backbone", "motion-director", "smm", "reconstruction")
KNOBS = {"motion_director": ("steps=2", "rank=2"), "smm": ("adam_steps=1",)}


@pytest.fixture(scope="module")
def image_clip(animated: Clip) -> Clip:
    """One video with an image and a prompt."""
    return animated.model_copy(update={"clip": "image", "prompts": ("a star",), "group": "image to video"})


@pytest.fixture(scope="module")
def part_clip(animated: Clip) -> Clip:
    """The same clip, of whose motion that of the object is wanted."""
    asked = {"clip": "part", "prompts": ("a star",), "images": (), "motion_of": "object", "group": "part of the motion"}
    return animated.model_copy(update=asked)


def job(params: Params, name: str, clip: Clip) -> Job:
    maker = METHODS[name].maker
    peer = peer_params(maker, {}, [f"{maker}.{it}" for it in KNOBS[maker]]) if maker in PEERS else None
    return Job(METHODS[name], params, clip, peer)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("compared") / "store")


@pytest.fixture(scope="module")
def results(store: Store, image_params: Params, image_clip: Clip, part_clip: Clip) -> dict[tuple[str, str], JobResult]:
    """By method and clip."""
    loaded, found = LoadedBackbone(), {}
    for clip in (image_clip, part_clip):
        for name in COMPARED:
            work = Workspace(store, image_params, loaded=loaded)
            found[name, clip.clip] = run_job(work, job(image_params, name, clip))
    return found


def test_who_can_and_who_cannot(results) -> None:
    assert all(not result.errors for result in results.values())
    reasons = {key: result.cannot for key, result in results.items() if result.cannot}
    assert reasons == {
        ("smm", "image"): "SMM makes videos of texts",
        ("smm", "part"): "SMM transfers whole motions",
        ("motion-director", "part"): "MotionDirector transfers whole motions",
    }
    for key, result in results.items():
        (cell,) = result.cells
        made = cell.metrics is not None and cell.video is not None and cell.seconds is not None
        assert made is (key not in reasons) and result.cached is (key in reasons)


def test_videos_begin_with_the_image(results, image_clip) -> None:
    picture = read_image(image_clip.images[0], height=32, width=32)
    for name in (OURS, "backbone", "motion-director"):
        (cell,) = results[name, "image"].cells
        assert (read_image(cell.video.file("image.png"), height=32, width=32) == picture).all()
        assert cell.video.inputs["image"] == results[OURS, "image"].cells[0].video.inputs["image"]


def test_what_is_wanted_is_tuned_on_and_compared_with(results, store, image_params, part_clip) -> None:
    work = Workspace(store, image_params)
    masked = stages.mask(work, part_clip, stages.ingest(work, part_clip))
    assert all(results[name, "part"].reference.key == masked.key for name in (OURS, "backbone", "reconstruction"))
    (ours,), (copy,) = (results[name, "part"].cells for name in (OURS, "reconstruction"))
    record = (store.root / "temporal" / ours.adapter_key / "artifact.json").read_text(encoding="utf-8")
    assert masked.digest("weights.safetensors") in record
    assert copy.video.inputs["clip"] == masked.digest("dense.safetensors")
    assert copy.preparing_seconds > masked.seconds


def test_tables_page_and_rows_say_who_cannot(results, tmp_path: Path) -> None:
    summary = write_comparison(tmp_path, ABOUT, [METHODS[name] for name in COMPARED], results=list(results.values()))
    assert not summary["failures"] and "cannot" not in summary["methods"][OURS]
    assert summary["methods"]["motion-director"]["cannot"] == [
        {
            "reason": "MotionDirector transfers whole motions", "clips": ["part"], "classes": ["part of the motion"],
            "cells": 1,
        }
    ]  # fmt: skip
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "SMM (cannot make 2 of 2 cells)" in text and "- SMM makes videos of texts: image (cells: 1)" in text
    row = next(line for line in text.partition("## By class")[2].splitlines() if line.startswith("| MotionDirector"))
    assert row.count("| cannot |") == 1 and "## Failed" not in text
    rows = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert sum(row["cannot"] == "SMM transfers whole motions" for row in rows) == 1
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "What methods cannot do" in page and "<dt>Videos</dt><dd>7</dd>" in page


def test_rows_are_kept_for_the_same_image_and_part_alone(
    results, store, image_params, image_clip, part_clip, tmp_path: Path
) -> None:
    work, finished = Workspace(store, image_params), FinishedJobs(tmp_path / "rows")
    for result in results.values():
        finished.keep(work, result)
    assert not (tmp_path / "rows" / "smm").exists()
    other = tmp_path / "other.png"
    write_image(other, read_image(image_clip.images[0], height=32, width=32)[::-1])
    for clip, changes in (
        (image_clip, ({"images": (other,)}, {"images": ()})),
        (part_clip, ({"motion_of": "camera"}, {"motion_of": "all"}, {"region": (0.1, 0.1, 0.5, 0.5)})),
    ):
        kept = job(image_params, OURS, clip)
        assert finished.find(work, kept) is not None
        for change in changes:
            assert finished.find(work, replace(kept, clip=clip.model_copy(update=change))) is None


def test_picked_prompts_keep_their_images_and_tell_them_apart(image_clip: Clip, image: Path) -> None:
    two = image_clip.model_copy(update={"prompts": ("a star", "a circle"), "images": (image, image)})
    (picked,) = runner.pick(Catalog(Path("c.csv"), (two,)), None, 1)
    assert (picked.prompts, picked.images) == (("a star",), (image,))
    same = two.model_copy(update={"prompts": ("", "")})
    with pytest.raises(CatalogError, match="clip image has one prompt for several images"):
        runner.pick(Catalog(Path("c.csv"), (same,)), None, None)


def test_a_file_of_ones_own_that_tunes_takes_images(image_clip: Clip, part_clip: Clip, tmp_path: Path) -> None:
    for makes, takes in (("tune", True), ("generate", False)):
        file = tmp_path / f"own_{makes}.py"
        text = f"from effivmt.config import Section\nclass MethodParams(Section): ...\ndef {makes}(): ...\n"
        file.write_text(text, encoding="utf-8")
        method = replace(METHODS["smm"], title=file.stem, maker="file", file=file)
        assert (lack(method, image_clip) is None) is takes
        assert lack(method, part_clip).columns == "motion_of and region"
