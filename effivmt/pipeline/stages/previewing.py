"""Previews: videos of a clip's first prompt that a transfer shows before its results are there. No result depends on
them, and one that cannot be made stops nothing.

The first is FlowMotion's, which tunes nothing; others are rendered with the motion LoRA as it is at checkpoints of
stage 3. All are in the clip's out folder, whose page shows them until the results replace it.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from effivmt.catalog import Clip
from effivmt.config import LoraParams
from effivmt.errors import EffiVMTError, StoreError, in_one_line
from effivmt.pipeline.stages.guided_rendering import render_guided
from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.stages.text_embedding import embed_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact
from effivmt.store.disk_errors import write_errors
from effivmt.store.files import atomic_write, export_file

if TYPE_CHECKING:
    from effivmt.method.adapter import LoraPair

UNTUNED_SHARE = 0.7
"""Of the render's steps, for FlowMotion: with its guidance that is as many passes as a plain rendering takes."""
STEPS = 6
"""Sampling steps of a tuned preview."""
POINTS = 2
"""Tuned previews at most, at equal distances: three took 6 % of stage 3 on wan-tiny, and 5 % is the limit."""
UNTUNED = "preview-0-flow-motion.mp4"
_NAME = re.compile(r"preview-(0-flow-motion|[1-9]-step-(\d+))\.mp4")


@dataclass(frozen=True)
class TunedPreview:
    """The `number`-th tuned preview, due after `step` steps; `pair` has the weights after `done` of them."""

    number: int
    step: int
    done: int
    pair: "LoraPair"

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"preview-{self.number}-step-{self.step}.mp4"


def preview_steps(params: LoraParams) -> list[int]:
    """The steps after which a tuning has a preview: the checkpoints at or before the points, as it saves no others."""
    points = (number * params.steps // (POINTS + 1) for number in range(1, POINTS + 1))
    return sorted({point // params.save_every * params.save_every for point in points} - {0})


def show_untuned(work: Workspace, clip: Clip, ingested: Artifact, masked: Artifact | None) -> None:
    """Shows the first prompt with the clip's motion as FlowMotion transfers it; removes previews of an earlier run.

    masked: the artifact of `mask` where a part of the motion is wanted; of clips that are sampled in pixels it has not
    the latents that FlowMotion needs, and there is no such preview.
    """
    from effivmt.method.flow_motion import FlowMotionParams, generate

    assert work.previews is not None
    folder, render = work.previews, work.params.render
    steps = max(1, round(UNTUNED_SHARE * render.steps))
    fewer = render.model_copy(update={"steps": steps, "seeds": render.seeds[:1]})
    with _optional(work):
        with write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for path in _previews(folder):
                path.unlink()
            _write_reference(work, ingested, folder)
        if masked is not None and "dense.safetensors" not in masked.files:
            raise EffiVMTError("FlowMotion takes a part of a motion only where sampling.mode is not pixel")
        embed_clip(work, clip)
        (video,) = render_guided(
            replace(work, params=work.params.model_copy(update={"render": fewer})),
            masked or ingested,
            clip.prompts[0],
            method="flow_motion",
            params=FlowMotionParams(),
            generate=generate,
        )
        export_file(video.artifact, "video.mp4", folder / UNTUNED)
        _show(work, clip, folder / UNTUNED)


def show_tuned(work: Workspace, clip: Clip, preview: TunedPreview, scratch: Path) -> None:
    """Shows the first prompt with the LoRAs of a tuning that goes on; `scratch` keeps the video while it does.

    One that is there is not rendered again, and one is left out whose weights are gone: its tuning was stopped between
    its checkpoint and its video, and is past that now.
    """
    assert work.previews is not None
    kept = scratch / preview.name
    with _optional(work):
        if not kept.is_file():
            if preview.done != preview.step:
                return
            _render(work, clip, preview.pair, kept)
        with write_errors(work.previews), atomic_write(work.previews / preview.name) as temporary:
            temporary.write_bytes(kept.read_bytes())
        _show(work, clip, work.previews / preview.name)


def _render(work: Workspace, clip: Clip, pair: "LoraPair", kept: Path) -> None:
    from effivmt.media.video import write_video
    from effivmt.method.adapter import Adapter
    from effivmt.method.rendering import render

    own, texts = work.params.render, embed_clip(work, clip)
    work.backbone.keep("transformer", "vae", frozen=True)
    frames = render(
        work.backbone,
        Adapter(pair.spatial, pair.temporal, pair.heads, {"backbone": work.folder.facts}),
        load_tensor(texts[clip.prompts[0]], "embedding"),
        load_tensor(texts[own.negative_prompt], "embedding"),
        params=own.model_copy(update={"steps": min(STEPS, own.steps)}),
        size=work.params.ingest,
        seed=own.seeds[0],
    )
    with atomic_write(kept) as temporary:
        write_video(temporary, frames, work.params.ingest.fps)


def _show(work: Workspace, clip: Clip, video: Path) -> None:
    """Puts a preview onto the page of its folder, and says where it is."""
    from effivmt.report.clip_page import Report, render_report

    folder, steps = video.parent, work.params.temporal.steps
    page = Report(
        clip=clip.clip,
        caption=clip.caption,
        reference=folder / "reference.mp4",
        backbone_id=work.folder.facts["id"],
        backbone_digest=work.folder.facts["digest"],
        previews={f"{_label(path, steps)}: {clip.prompts[0]}": path for path in _previews(folder)},
    )
    with write_errors(folder), atomic_write(folder / "report.html") as temporary:
        temporary.write_text(render_report(page), encoding="utf-8")
    work.callback.on_notice(f"preview, {_label(video, steps)}: {video}")


def _label(path: Path, steps: int) -> str:
    found = _NAME.fullmatch(path.name)
    assert found is not None
    return f"after step {found[2]} of {steps}" if found[2] else "without tuning (FlowMotion)"


def _previews(folder: Path) -> list[Path]:
    """The previews in a folder, in the order of their making."""
    return [folder / name for name in sorted(os.listdir(folder)) if _NAME.fullmatch(name)]


def _write_reference(work: Workspace, ingested: Artifact, folder: Path) -> None:
    """Writes reference.mp4 as the results have it."""
    from effivmt.media.video import write_video

    with atomic_write(folder / "reference.mp4") as temporary:
        write_video(temporary, load_tensor(ingested, "frames").numpy(), work.params.ingest.fps)


@contextmanager
def _optional(work: Workspace) -> Iterator[None]:
    """Says why a preview could not be made, also for want of a GPU's memory; a fault of the store is raised."""
    from torch import OutOfMemoryError

    try:
        yield
    except StoreError:
        raise
    except (EffiVMTError, OutOfMemoryError) as error:
        work.callback.on_notice(f"a preview is left out: {in_one_line(error)}")
