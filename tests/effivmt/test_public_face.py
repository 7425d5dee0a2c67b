"""The public interface: every name is there, and importing the package takes nothing heavy."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_imports import HEAVY

import effivmt
from effivmt.pipeline.workspace import Workspace


@pytest.mark.parametrize("name", effivmt.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(effivmt, name) is not None and name in dir(effivmt)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = effivmt.nothing


def test_import_takes_nothing_heavy() -> None:
    code = "import sys, effivmt; effivmt.Params; effivmt.load_catalog; effivmt.Store; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(found.stdout.split())


def test_a_transfer_a_rendering_and_metrics(workspace: Workspace, clip: effivmt.Clip, tmp_path: Path) -> None:
    stages = []

    class Recording(effivmt.Callback):
        def on_stage_end(self, run) -> None:
            stages.append(run.stage)

    work = effivmt.open_workspace(workspace.params, workspace.store.root, callback=Recording())
    result, outputs = effivmt.transfer(work, clip, str(tmp_path / "out"))
    assert stages == ["ingest", "heads", "spatial", "temporal", "render", "evaluate"] and not result.cached
    assert len(result.metrics) == 2 and all(video.is_file() for video in outputs.videos)
    adapter = str(outputs.adapter)
    assert effivmt.read_manifest(adapter)["backbone"]["id"] == result.backbone["id"]
    assert effivmt.load_adapter(adapter).temporal
    alone = work.params.render.model_copy(update={"baseline": False})
    params = work.params.model_copy(update={"render": alone})
    (video,) = effivmt.render(replace(work, params=params), [clip.prompts[0]], adapter)
    assert video.artifact.cached and video.without_adapter is None
    metrics = effivmt.evaluate(
        str(outputs.reference),
        str(outputs.videos[0]),
        clip.prompts[0],
        caption=clip.caption,
        params=work.params.evaluate,
    )
    assert set(metrics) >= {"text_similarity", "motion_fidelity", "appearance_leakage"}


def test_a_catalog_by_its_name(workspace: Workspace, catalog: effivmt.Catalog, tmp_path: Path) -> None:
    loaded = effivmt.load_catalog(str(catalog.path))
    assert loaded == catalog
    summary = effivmt.run_catalog(workspace, loaded.only(("bad",)), str(tmp_path / "out"))
    assert [outcome.status for outcome in summary.clips] == ["failed"]
