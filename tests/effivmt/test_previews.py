"""Previews: what appears while a clip is tuned, that results are the same with them, and that none is made twice."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import OutOfMemoryError

from effivmt.catalog import Clip
from effivmt.config import LoraParams
from effivmt.errors import EffiVMTError
from effivmt.media.video import read_frames
from effivmt.method.flow_motion import FlowMotionParams
from effivmt.method.guided import GuidedRequest
from effivmt.pipeline.api import transfer
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.stages import previewing
from effivmt.pipeline.stages.previewing import preview_steps
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store

PREVIEWS = ["preview-0-flow-motion.mp4", "preview-1-step-1.mp4", "preview-2-step-2.mp4"]


class Notes(Callback):
    """Keeps the notices, and the page at each preview; raises KeyboardInterrupt where a notice holds `killed_at`."""

    def __init__(self, killed_at: str = "") -> None:
        self.notices: list[str] = []
        self.pages: list[str] = []
        self.killed_at = killed_at

    def on_notice(self, notice: str) -> None:
        self.notices.append(notice)
        if notice.startswith("preview, "):
            video = Path(notice.rpartition(": ")[2])
            assert video.is_file()
            self.pages.append((video.parent / "report.html").read_text(encoding="utf-8"))
            if self.killed_at and self.killed_at in notice:
                raise KeyboardInterrupt


@pytest.fixture
def asked(params, tmp_path: Path) -> Workspace:
    """A workspace over an empty store that asks for previews."""
    params = params.model_copy(
        update={
            "preview": True,
            "temporal": params.temporal.model_copy(update={"steps": 3, "save_every": 1}),
            "render": params.render.model_copy(update={"baseline": False}),
        }
    )
    return Workspace(Store(tmp_path / "store"), params, Notes())


@pytest.fixture
def one(clip: Clip) -> Clip:
    return clip.model_copy(update={"prompts": clip.prompts[:1]})


def contents(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    """The files of an out folder that hold no time, by name."""
    names = {"transfer.json", "report.html", *without}
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name not in names}


def test_previews_come_in_turn_and_change_no_result(asked: Workspace, one: Clip, tmp_path: Path) -> None:
    result, outputs = transfer(asked, one, tmp_path / "out")
    notes = asked.callback
    assert [Path(notice.rpartition(": ")[2]).name for notice in notes.notices] == PREVIEWS
    assert "without tuning (FlowMotion)" in notes.notices[0] and "after step 2 of 3" in notes.notices[2]
    assert [page.count("data:video/mp4") for page in notes.pages] == [2, 3, 4]  # one is the reference
    frames = [read_frames(outputs.folder / name)[0] for name in PREVIEWS]
    assert {video.shape for video in frames} == {read_frames(outputs.videos[0])[0].shape}
    assert len({video.tobytes() for video in frames}) == 3
    page = outputs.report.read_text(encoding="utf-8")
    assert "Previews" not in page and "What the metrics say" in page

    plain = replace(asked, store=Store(tmp_path / "other"), params=asked.params.model_copy(update={"preview": False}))
    again, others = transfer(plain, one, tmp_path / "plain")
    assert [run.artifacts[0].path.name for run in again.runs] == [run.artifacts[0].path.name for run in result.runs]
    assert contents(others.folder) == contents(outputs.folder, without=tuple(PREVIEWS))
    assert again.motion.content_digest == result.motion.content_digest

    transfer(asked, one.model_copy(update={"prompts": ("a blue square",)}), tmp_path / "out")
    assert len(notes.notices) == 3  # nothing is tuned, so there is nothing to wait for


def test_a_resumed_run_makes_no_preview_twice(
    asked: Workspace, one: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        transfer(replace(asked, callback=Notes("after step 1 of")), one, tmp_path / "out")
    rendered, stock = [], previewing._render

    def counting(work, clip, pair, kept):
        rendered.append(kept.name)
        stock(work, clip, pair, kept)

    monkeypatch.setattr(previewing, "_render", counting)
    monkeypatch.setattr("effivmt.method.flow_motion.generate", lambda *_: pytest.fail("it was there"))
    transfer(asked, one, tmp_path / "out")
    assert rendered == PREVIEWS[2:]
    assert [Path(notice.rpartition(": ")[2]).name for notice in asked.callback.notices] == PREVIEWS


@pytest.mark.parametrize("mode", ["dense", "pixel"])
def test_the_first_preview_has_the_wanted_part_of_the_motion(
    asked: Workspace, one: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    references = []

    def stopping(request: GuidedRequest, _params: FlowMotionParams) -> None:
        references.append(request.reference)
        raise KeyboardInterrupt

    class Until(Notes):
        def on_stage_start(self, stage: str) -> None:
            if stage == "heads":
                raise KeyboardInterrupt

    monkeypatch.setattr("effivmt.method.flow_motion.generate", stopping)
    sampling = asked.params.sampling.model_copy(update={"mode": mode})
    work = replace(asked, callback=Until(), params=asked.params.model_copy(update={"sampling": sampling}))
    with pytest.raises(KeyboardInterrupt):
        transfer(work, one.model_copy(update={"motion_of": "object"}), tmp_path / "out")
    (masked,) = (tmp_path / "store" / "mask").iterdir()
    if mode == "pixel":
        assert not references and "sampling.mode is not pixel" in work.callback.notices[0]
    else:
        assert torch.equal(references[0], load_file(masked / "dense.safetensors")["dense"])


@pytest.mark.parametrize("fault", [EffiVMTError("every pixel is black"), OutOfMemoryError("CUDA out of memory")])
def test_a_preview_that_fails_stops_nothing(
    asked: Workspace, one: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(previewing, "_render", fail)
    monkeypatch.setattr("effivmt.method.flow_motion.generate", fail)
    _, outputs = transfer(asked, one, tmp_path / "out")
    told = "a preview is left out: "
    assert len(asked.callback.notices) == 3
    assert all(notice.startswith(told) and str(fault) in notice for notice in asked.callback.notices)
    assert outputs.videos[0].is_file() and not list(outputs.folder.glob("preview*"))


@pytest.mark.parametrize(
    ("steps", "save_every", "expected"),
    [(600, 100, [200, 400]), (2000, 250, [500, 1250]), (3, 1, [1, 2]), (150, 100, [100]), (60, 100, [])],
)
def test_previews_are_at_checkpoints(steps: int, save_every: int, expected: list[int]) -> None:
    assert preview_steps(LoraParams(steps=steps, save_every=save_every, learning_rate=1e-3)) == expected
