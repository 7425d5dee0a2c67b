"""Processor seconds of a catalog run whose results the store has, by the number of clips: what orchestration costs.

    python bench/all_hits.py --clips 100 --folder /tmp/all-hits [--engine prefect]

One clip is really computed; the store's artifacts and the out folders of the others are copies of it under their own
keys, so that a run finds every clip as if it had computed it. Every clip has a video file of its own.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from effivmt.catalog import load_catalog
from effivmt.embedded import data_folder
from effivmt.params_file import load_params
from effivmt.pipeline.catalog_run import run_catalog
from effivmt.pipeline.outputs import RECORD
from effivmt.pipeline.runner import StageRunner
from effivmt.pipeline.transfer import run_clip
from effivmt.pipeline.workspace import Workspace, open_workspace
from effivmt.pipeline.write_outputs import _made_of
from effivmt.store import Artifact, Key, Store

SETTINGS = ("ingest.num_frames=17", "spatial.steps=2", "temporal.steps=2", "render.steps=2", "sampling.frames=9")
COMMAND = "import sys; from effivmt_flows.cli.main import main; sys.exit(main(sys.argv[1:]))"


class CopyingStore(Store):
    """A store in which a step's result is a copy of the newest of the same stage."""

    def build(self, key: Key, make: Callable[[Path, Path], None], *, force: bool = False) -> Artifact:
        """The key's artifact, copied where it is not there."""
        original = next((self.root / key.stage).glob("*"))

        def copy(out: Path, _: Path) -> None:
            shutil.copytree(original, out, dirs_exist_ok=True)
            (out / "artifact.json").unlink()

        return super().build(key, copy, force=force)


def make(folder: Path, count: int) -> None:
    """Writes a catalog of `count` clips, and a store and an out folder that have them all; goes on where it stopped."""
    sample = (data_folder() / "samples" / "zigzag.mp4").read_bytes()
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    rows = ["clip,video,caption,prompts"]
    for number in range(count):
        (folder / f"videos/{number}.mp4").write_bytes(sample + (8 + 8).to_bytes(4) + b"free" + number.to_bytes(8))
        rows.append(f"clip-{number},videos/{number}.mp4,a red square,a yellow star | a purple square")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    catalog, out = load_catalog(folder / "clips.csv"), folder / "out"
    work = open_workspace(load_params("tiny", list(SETTINGS)), folder / "store")
    run_catalog(work, catalog.only(("clip-0",)), out)
    copying = Workspace(CopyingStore(work.store.root), work.params, loaded=work.loaded)
    original = json.loads((out / "clip-0" / RECORD).read_text(encoding="utf-8"))
    for clip in catalog.clips[1:]:
        if (out / clip.clip / RECORD).is_file():
            continue
        result = run_clip(copying, clip, StageRunner(work.callback))
        shutil.copytree(out / "clip-0", out / clip.clip, dirs_exist_ok=True)
        record = original | {"made_of": _made_of(work, result), "clip": original["clip"] | {"clip": clip.clip}}
        (out / clip.clip / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, engine: str) -> dict[str, float]:
    """Processor and wall seconds of `effivmt run` over the catalog of a folder, its child processes included."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    command = ["run", "clips.csv", "--params", "tiny", *settings, "--store", "store", "--engine", engine, "--quiet"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", COMMAND, *command], cwd=folder, env=os.environ, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"processor_seconds": round(busy, 2), "wall_seconds": round(time.perf_counter() - start, 2)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--engine", choices=("local", "prefect"), default="local")
    arguments = parser.parse_args()
    make(arguments.folder.resolve(), arguments.clips)
    seconds = measure(arguments.folder.resolve(), arguments.engine)
    print(json.dumps({"clips": arguments.clips, "engine": arguments.engine} | seconds))
