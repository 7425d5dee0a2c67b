"""The out folder of a clip: where its files are."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from effivmt.errors import EffiVMTError
from effivmt.pipeline.stages import RenderedVideo

RECORD = "transfer.json"
"""The file of a clip's out folder that says what made it."""


@dataclass(frozen=True)
class Outputs:
    """Paths of the files of a clip; `videos` in the order of the metrics, one per prompt and seed."""

    folder: Path
    videos: tuple[Path, ...]

    @property
    def reference(self) -> Path:
        """The clip as the stages saw it, an mp4."""
        return self.folder / "reference.mp4"

    @property
    def mask(self) -> Path:
        """The wanted part of the clip's motion, an mp4; only where not all of it is wanted."""
        return self.folder / "mask.mp4"

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
        """Metrics of every video, JSON: {clip, caption, notices, results: [{video, prompt, seed, adapter}]}.

        Where the video was rendered without the adapter, too, a result also has `without_adapter` (its file) and
        `baseline` (its metrics); where it begins with an image, `image` (its file, as it was fitted).
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
    def record(self) -> Path:
        """What made the folder: clip, params, backbone, timings, versions, sizes of all files; JSON."""
        return self.folder / RECORD

    @property
    def tracked(self) -> Path:
        """Where the folder is recorded in MLflow; absent until it is."""
        return self.folder / "tracked.json"

    def current(self, made_of: str) -> bool:
        """Whether the folder holds all files made of `made_of`; reads sizes, not contents."""
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            return record["made_of"] == made_of and all(
                (self.folder / name).stat().st_size == size for name, size in record["files"].items()
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return False


def check_writable(out: Path) -> None:
    """EffiVMTError where a folder for results cannot be written or made; told before the work that ends there."""
    nearest = next((place for place in (out, *out.absolute().parents) if os.path.lexists(place)), out)
    fault = "a file stands where a folder is expected" if not nearest.is_dir() else "permission is missing"
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise EffiVMTError(f"{out} cannot be written ({nearest}: {fault}); choose another place with --out")


def refuse_other_video(folder: Path, digest: str) -> None:
    """Raises EffiVMTError where the out folder of a clip holds the results of a video of another SHA-256."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))["video"]["sha256"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return  # there are none
    if found != digest:
        raise EffiVMTError(
            f"{folder} holds the results of another video, whose file had the same name; keep them apart with --name "
            "or --out, or give this clip's id as --name to replace them"
        )


def without_adapter(video: Path) -> Path:
    """The path of the same prompt and seed rendered without the adapter: `video-1-without-adapter.mp4`."""
    return video.with_name(f"{video.stem}-without-adapter{video.suffix}")


def image_name(video: Path) -> str:
    """The name of the image, as it was fitted, that a video of this path begins with: `image-1.png`."""
    return f"image-{prompt_number(video.name)}.png"


def prompt_number(video: str) -> int:
    """The number of the prompt, from 1, that a video of one of the `video_names` is of."""
    return int(video.removesuffix(".mp4").split("-")[1])


def video_names(prompts: Sequence[str], rendered: Sequence[RenderedVideo]) -> list[str]:
    """File names by prompt number, from 1, and with several seeds by seed: `video-1.mp4`, `video-1-seed7.mp4`."""
    several, each = len({one.seed for one in rendered}) > 1, max(1, len(rendered) // max(1, len(prompts)))
    return [
        f"video-{1 + place // each}{f'-seed{one.seed}' if several else ''}.mp4" for place, one in enumerate(rendered)
    ]
