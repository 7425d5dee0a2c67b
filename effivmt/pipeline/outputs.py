"""The out folder of a clip, which a user takes away; written only where it is not up to date."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from effivmt import __version__
from effivmt.pipeline.stages import Rendered
from effivmt.pipeline.transfer import Transferred
from effivmt.pipeline.workspace import Workspace
from effivmt.store.digests import canonical_json, sha256_bytes
from effivmt.store.files import write_errors

LAYOUT = 2
"""Raised whenever the same results make other files."""


@dataclass(frozen=True)
class Outputs:
    """Where the files of a clip lie; `videos` in the order of the metrics, one for each prompt and seed."""

    folder: Path
    videos: tuple[Path, ...]

    @property
    def reference(self) -> Path:
        """The clip as the stages saw it, an mp4."""
        return self.folder / "reference.mp4"

    @property
    def sheet(self) -> Path:
        """Frames of the reference and of every video with and without the adapter, a PNG."""
        return self.folder / "sheet.png"

    @property
    def heads(self) -> Path:
        """The head map, a PNG."""
        return self.folder / "heads.png"

    @property
    def adapter(self) -> Path:
        """The adapter folder."""
        return self.folder / "adapter"

    @property
    def metrics(self) -> Path:
        """Metrics of every video, JSON: {clip, caption, results: [{video, prompt, seed, adapter}]}.

        Where the video was rendered without the adapter, too, a result also has `without_adapter` (its file) and
        `baseline` (its metrics).
        """
        return self.folder / "metrics.json"

    @property
    def losses(self) -> Path:
        """Losses of every tuning step, JSON: {stage: {name: [values]}}."""
        return self.folder / "losses.json"

    @property
    def report(self) -> Path:
        """The page that shows all of it, one HTML file."""
        return self.folder / "report.html"

    @property
    def run(self) -> Path:
        """What made the folder: clip, params, backbone, timings, versions, sizes of all files; JSON."""
        return self.folder / "run.json"

    @property
    def tracked(self) -> Path:
        """Where the folder was recorded; absent until it was."""
        return self.folder / "tracked.json"

    def current(self, made_of: str) -> bool:
        """Whether the folder holds, whole, what `made_of` gives; reads sizes, not contents."""
        try:
            record = json.loads(self.run.read_text(encoding="utf-8"))
            return record["made_of"] == made_of and all(
                (self.folder / name).stat().st_size == size for name, size in record["files"].items()
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return False


def write_outputs(work: Workspace, result: Transferred, out: Path) -> Outputs:
    """Brings `out/<clip>/` up to date; videos that an earlier run left there and this one does not have go.

    Raises StoreError where an artifact is damaged, EffiVMTError where the folder cannot be written.
    """
    work = work.for_clip(result.clip)
    folder = out / result.clip.clip
    outputs = Outputs(folder, tuple(folder / name for name in video_names(result.clip.prompts, result.rendered)))
    with write_errors(folder):
        made_of = _made_of(work, result)
        if not outputs.current(made_of):
            from effivmt.pipeline.write_outputs import fill

            fill(work, result, outputs, made_of)
    return outputs


def without_adapter(video: Path) -> Path:
    """Where the same prompt and seed lies without the adapter: `video-1-without-adapter.mp4`."""
    return video.with_name(f"{video.stem}-without-adapter{video.suffix}")


def video_names(prompts: Sequence[str], rendered: Sequence[Rendered]) -> list[str]:
    """File names by prompt number, from 1, and with several seeds by seed: `video-1.mp4`, `video-1-seed7.mp4`."""
    numbers = {prompt: number for number, prompt in enumerate(prompts, 1)}
    several = len({one.seed for one in rendered}) > 1
    return [f"video-{numbers[one.prompt]}{f'-seed{one.seed}' if several else ''}.mp4" for one in rendered]


def _made_of(work: Workspace, result: Transferred) -> str:
    """Digest of all that the folder's content depends on, timings apart."""
    artifacts = [[run.stage, *(artifact.content_digest for artifact in run.artifacts)] for run in result.runs]
    clip = result.clip.model_dump(mode="json", exclude={"video", "appearance_images"})
    parts = [__version__, LAYOUT, clip, artifacts, result.backbone_id, work.params.model_dump(mode="json")]
    return sha256_bytes(canonical_json(parts))
