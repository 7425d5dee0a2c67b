"""The pipeline around the models: a catalog of which the store has all results, and how fast the CLI starts."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from effivmt.catalog import Catalog, load_catalog
from effivmt.config import Params
from effivmt.embedded import data_folder
from effivmt.pipeline.catalog_run import run_catalog
from effivmt.pipeline.workspace import open_workspace
from timing import Value, arguments, interleaved, machine, report, timed

PARAMS = Params.model_validate(
    {
        "ingest": {"num_frames": 5, "height": 32, "width": 32},
        "sampling": {"mode": "latent", "frames": 5},
        "heads": {"noise_levels": [0.5]},
        "spatial": {"steps": 1, "rank": 2, "batch": 1},
        "temporal": {"steps": 1, "rank": 2, "batch": 1},
        "render": {"steps": 1, "baseline": False},
    }
)
"""A transfer in seconds; what a hit costs does not depend on how long the work took."""
CLI = "from effivmt_flows.cli.main import main; raise SystemExit(main(['--help']))"


def write_catalog(path: Path, clips: int) -> Path:
    """A catalog of so many clips of one video, which share all artifacts."""
    video = path.parent / "zigzag.mp4"  # beside the catalog, which reads no file elsewhere
    shutil.copyfile(data_folder() / "samples" / "zigzag.mp4", video)
    rows = [f"clip-{number},{video},a red square,a blue star" for number in range(clips)]
    path.write_text("\n".join(["clip,video,caption,prompts", *rows]) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Fills a store once, then times runs that find everything in it."""
    parser = arguments(__doc__ or "", "pipeline")
    parser.add_argument("--clips", type=int, default=100, help="clips of the catalog")
    asked = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        catalog, one = (load_catalog(write_catalog(folder / f"{clips}.csv", clips)) for clips in (asked.clips, 1))
        first = run_catalog(open_workspace(PARAMS, folder / "store"), catalog, folder / "out")
        assert not first.failed, first

        def again(chosen: Catalog, out: Path) -> None:
            summary = run_catalog(open_workspace(PARAMS, folder / "store"), chosen, out)
            assert summary.hit == len(chosen.clips), summary

        cases = {
            "import of torch": lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True),
            "effivmt --help": lambda: subprocess.run([sys.executable, "-c", CLI], check=True, capture_output=True),
            "one clip, all hits": lambda: again(one, folder / "out of one"),
            f"{asked.clips} clips, all hits": lambda: again(catalog, folder / "out"),
        }
        found = interleaved({name: timed(run) for name, run in cases.items()}, asked.rounds)
    rows: list[Mapping[str, Value]] = [
        {"run": name, "s": timing.seconds, "± s": timing.spread, "ratio to torch's import": timing.ratio}
        for name, timing in found.items()
    ]
    report(asked.out, "The pipeline", rows, machine("cpu", "float32"))


if __name__ == "__main__":
    main()
