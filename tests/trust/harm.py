"""What a disk, another process or a person does to the files of a store, and what a transfer tells of it."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from effivmt.errors import DamageError
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.outcomes import StageRun
from effivmt.pipeline.transfer import TransferResult
from effivmt.store.digests import sha256_file

HARMS = ("flip", "cut", "gone", "link", "folder")
UNREAD = {"sheet.png", "probe.json"}
"""Files of artifacts that no stage and no command reads."""
TIMED = {"report.html", "transfer.json"}
"""Files of an out folder that tell the time."""


def harm(path: Path, kind: str) -> None:
    """Damages a file or folder: one bit flipped in its middle, cut in half, gone, or a link or folder in its place."""
    if kind == "flip":
        with path.open("r+b") as stream:
            stream.seek(path.stat().st_size // 2)
            byte = stream.read(1)[0]
            stream.seek(-1, os.SEEK_CUR)
            stream.write(bytes([byte ^ 1]))
    elif kind == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif kind == "gone":
        path.unlink()
    else:
        moved = path.rename(path.with_name(f"{path.name}.moved"))
        path.mkdir() if kind == "folder" else path.symlink_to(moved)


@dataclass(frozen=True)
class Made:
    """A whole transfer: `store` and `out` in its folder, and its result."""

    folder: Path
    result: TransferResult

    def copy(self, target: Path) -> Path:
        """A copy of the store, to be damaged."""
        return Path(shutil.copytree(self.folder / "store", target / "store"))

    def outputs(self) -> dict[str, str]:
        return outputs(self.folder / "out")

    def artifact(self, store: Path, stage: str) -> Path:
        """The folder of a stage's artifact in a copy of the store; of `text` that of the caption, of `render` the
        adapter's."""
        own = {
            "ingest": self.result.ingested,
            "heads": self.result.classified,
            "spatial": self.result.appearance,
            "temporal": self.result.motion,
            "render": self.result.rendered[0].artifact,
            "evaluate": self.result.evaluated,
        }
        if stage != "text":
            return store / own[stage].path.relative_to(self.folder / "store")
        caption = self.result.classified.inputs["caption"]
        (found,) = (p.parent for p in store.glob("text/*/*.safetensors") if sha256_file(p) == caption)
        return found


def outputs(out: Path) -> dict[str, str]:
    """Digests of an out folder's files by name, without those that tell the time, and half-written ones of a kill."""
    files = (path for path in out.rglob("[!.]*") if path.is_file() and path.name not in TIMED)
    return {path.relative_to(out).as_posix(): sha256_file(path) for path in files}


def contents(store: Path) -> dict[str, str]:
    """Digests of all files of a store by name, without the records, which tell the time."""
    files = (path for path in store.glob("*/*/**/*") if path.is_file() and path.name != "artifact.json")
    return {path.relative_to(store).as_posix(): sha256_file(path) for path in files}


@dataclass
class Ear(Callback):
    """Hears what a run tells."""

    damaged: list[Path] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)

    def on_damage(self, damage: DamageError) -> None:
        assert "\n" not in str(damage)
        self.damaged.append(damage.path)

    def on_stage_end(self, run: StageRun) -> None:
        if not run.cached:
            self.ran.append(run.stage)
