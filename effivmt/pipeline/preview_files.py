"""Previews as files of the out folder; each is told as soon as it is there."""

from pathlib import Path
from typing import TYPE_CHECKING

from effivmt.pipeline.outputs import Outputs
from effivmt.pipeline.workspace import Workspace
from effivmt.store.disk_errors import write_errors
from effivmt.store.files import atomic_write

if TYPE_CHECKING:
    import numpy as np

UNTUNED = "without-tuning.mp4"
"""The preview that is drawn before any tuning."""


class PreviewFiles:
    """Writes the previews of one clip, and tells the callback of each."""

    def __init__(self, outputs: Outputs, work: Workspace) -> None:
        """outputs: the clip's; work: its params and its callback."""
        self._folder, self._fps, self._callback = outputs.previews, work.params.ingest.fps, work.callback

    def __call__(self, frames: "np.ndarray", step: int, steps: int) -> None:
        """Writes frames uint8 (T, H, W, 3) drawn after `step` of `steps` steps of stage 3."""
        from effivmt.media.video import write_video

        path = self.place(f"step-{step}.mp4")
        with atomic_write(path) as temporary:
            write_video(temporary, frames, self._fps)
        self._callback.on_notice(f"preview after {step} of {steps} steps: {path}")

    def place(self, name: str) -> Path:
        """The path of a preview, whose folder is there; EffiVMTError where it cannot be made."""
        with write_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / name
