"""Previews with wan-tiny: the first one beside a plain rendering, and the tuned ones beside stage 3.

Seconds are those of the processor, so that other work on the machine counts little.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.embedded import data_folder
from effivmt.params_file import load_params
from effivmt.pipeline import stages
from effivmt.pipeline.stages.previewing import POINTS, show_untuned
from effivmt.pipeline.workspace import Workspace, open_workspace
from effivmt.store import Artifact
from timing import Value, arguments, interleaved, machine, report

PLAIN, FIRST, BARE, SHOWN = "plain rendering of one prompt", "first preview", "stage 3", "stage 3 with previews"


def busy(run: Callable[[], object]) -> float:
    """Seconds of the processor that a call takes."""
    start = time.process_time()
    run()
    return time.process_time() - start


class Cases:
    """The cases over one clip; each turn has a seed of its own, so that the store has nothing of it."""

    def __init__(self, folder: Path, steps: int) -> None:
        """Ingests the sample clip, so that the cases begin with it. steps: of the tunings that are measured."""
        settings = [f"temporal.steps={steps}", f"temporal.save_every={steps // (POINTS + 1)}", "spatial.steps=0"]
        params = load_params("tiny", [*settings, "render.baseline=false", "backbone.device=cpu"])
        self.clip = Clip(
            clip="zigzag",
            video=data_folder() / "samples" / "zigzag.mp4",
            caption="a red square on a navy background",
            prompts=("a yellow star on a black background",),
        )
        self.work = open_workspace(params, folder / "store")
        self.previews, self.turn = folder / "out", 0
        self.ingested = stages.ingest(self.work, self.clip)
        self.classified = stages.heads(self.work, self.clip, self.ingested)
        self.appearance = stages.spatial(self.work, self.clip, self.ingested, self.classified)

    def all(self) -> Mapping[str, Callable[[], float]]:
        """The cases by name, the plain rendering first."""
        return {
            PLAIN: lambda: busy(lambda: stages.render(self._work(), self.clip.prompts, None)),
            FIRST: lambda: busy(lambda: show_untuned(self._work(previews=True), self.clip, self.ingested, None)),
            BARE: lambda: busy(lambda: self._tune(self._work())),
            SHOWN: lambda: busy(lambda: self._tune(self._work(previews=True))),
        }

    def _work(self, *, previews: bool = False) -> Workspace:
        self.turn += 1
        own = self.work.params
        render = own.render.model_copy(update={"seeds": (self.turn,)})
        params = own.model_copy(update={"seed": self.turn, "render": render})
        return replace(self.work, params=params, previews=self.previews if previews else None)

    def _tune(self, work: Workspace) -> Artifact:
        return stages.temporal(work, self.clip, self.ingested, self.classified, appearance=self.appearance)


def main() -> None:
    """Measures a short stage 3 and counts the share for its default number of steps."""
    parser = arguments(__doc__ or "", "preview")
    parser.add_argument("--steps", type=int, default=40, help="steps of stage 3 that are measured")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with TemporaryDirectory(prefix="effivmt-") as folder:
        found = interleaved(Cases(Path(folder), asked.steps).all(), asked.rounds)
    steps, plain = Params().temporal.steps, found[PLAIN].seconds
    stage = found[BARE].seconds * steps / asked.steps
    tuned = found[SHOWN].seconds - found[BARE].seconds
    seconds = {
        PLAIN: plain,
        FIRST: found[FIRST].seconds,
        f"stage 3, {steps} steps": stage,
        f"its {POINTS} previews": tuned,
    }
    rows: list[Mapping[str, Value]] = [
        {
            "what": name,
            "s": value,
            "ratio to a plain rendering": found[FIRST].ratio if name == FIRST else value / plain,
            "share of stage 3": value / stage if name.startswith("its") else None,
        }
        for name, value in seconds.items()
    ]
    report(asked.out, f"Previews; {asked.steps} steps of stage 3 were measured", rows, machine("cpu", "float32"))


if __name__ == "__main__":
    main()
