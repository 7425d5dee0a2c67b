"""The suite as files: what is written, and that the files in data/motionbench-mini are what the code writes."""

from pathlib import Path

import numpy as np
import pytest

from effivmt.benchmark.extra import extra_scenes
from effivmt.benchmark.files import CATALOG, EXTRA, QUICK, TUNING, load_truth, write_suite
from effivmt.benchmark.scene import NUM_FRAMES
from effivmt.benchmark.suite import quick, suite
from effivmt.benchmark.tuning import tuning_scenes
from effivmt.catalog import load_catalog
from effivmt.media.video import probe, read_frames, read_image
from effivmt.world.motions import SIZE

DATA = Path(__file__).parents[3] / "data" / "motionbench-mini"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("suite") / "new"
    write_suite(folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    paths = [*folder.glob("*.csv"), *folder.glob("truth/*"), *folder.glob("videos/*"), *folder.glob("images/*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_catalogs_hold_the_scenes(written):
    few = quick(suite())
    for name, scenes in ((CATALOG, suite()), (QUICK, few), (TUNING, tuning_scenes()), (EXTRA, extra_scenes())):
        clips = load_catalog(written / name).clips
        assert [(clip.clip, clip.caption, clip.prompts, clip.group, clip.motion_of) for clip in clips] == [
            (scene.name, scene.caption, scene.prompts, scene.group, scene.motion_of) for scene in scenes
        ]
        assert [clip.region for clip in clips] == [scene.region for scene in scenes]
        assert all(clip.video.is_file() for clip in clips)
        for clip, scene in zip(clips, scenes, strict=True):
            kept = [read_image(path, height=SIZE, width=SIZE) for path in clip.images]
            assert all(np.array_equal(one, other) for one, other in zip(kept, scene.images, strict=True))
    assert len(load_catalog(written / CATALOG).clips) == 24 and len(few) == 8


def test_videos_and_truth_are_what_was_drawn(written):
    for scene in (suite()[0], suite()[9], suite()[23], *tuning_scenes()[2:]):
        drawn, video = scene.draw(), written / "videos" / f"{scene.name}.mp4"
        frames, fps = read_frames(video)
        assert frames.shape == (NUM_FRAMES, SIZE, SIZE, 3) and fps == 16 and probe(video).codec == "h264"
        assert np.abs(frames.astype(int) - drawn.frames).mean() < 4  # compression
        truth = load_truth(written / "truth" / f"{scene.name}.safetensors")
        for stored, own in zip(truth, (drawn.tracks, drawn.visible, drawn.mask), strict=True):
            assert stored.dtype == own.dtype and np.array_equal(stored, own)


def test_the_files_of_this_repository_are_these(written):
    """Catalogs byte for byte; another processor may draw or compress with other last bits."""
    new, kept = files(written), files(DATA)
    assert new.keys() == kept.keys() and len(new) == 4 + 2 * 37 + 6
    assert sum(map(len, kept.values())) < 4_000_000
    for name in new:
        if name.endswith(".csv"):
            assert new[name] == kept[name]
        elif name.startswith("truth"):
            for one, other in zip(load_truth(written / name), load_truth(DATA / name), strict=True):
                assert one.shape == other.shape
                if one.dtype == bool:
                    assert (one == other).mean() > 0.999
                else:
                    assert np.abs(one - other).max() < 1e-3
        elif name.startswith("images"):
            one, other = (read_image(folder / name, height=SIZE, width=SIZE).astype(int) for folder in (written, DATA))
            assert np.abs(one - other).max() <= 1
        else:
            one, other = (read_frames(folder / name)[0].astype(int) for folder in (written, DATA))
            assert np.abs(one - other).mean() < 1
