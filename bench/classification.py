"""Head classification beside a plain forward pass of the same transformer, in time and in peak memory.

By default 12 heads of 128 channels in one block see 4,095 tokens; `--full` takes the 32,760 of 81 frames of 480 x 832.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from effivmt.method.head_scores import attention_scores
from effivmt.planning.counting import Counter
from timing import Value, arguments, interleaved, machine, report, timed
from wan_shapes import WAN_1_3B, random_transformer, write_configs

GRIDS = {"quick": (21, 26, 30), "full": (21, 60, 104)}
"""Latent frames, height and width: 4,095 and 32,760 tokens."""


def measure(transformer: WanTransformer3DModel, grid: tuple[int, int, int], rounds: int) -> list[Mapping[str, Value]]:
    """Rows of a plain forward pass and of classifications with more and more query rows."""
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 16, *grid, generator=random)
    text, time = torch.randn(1, 512, 4096, generator=random) * 0.1, torch.tensor([500.0])

    def forward() -> None:
        with torch.no_grad():
            transformer(latents, time, text, return_dict=False)

    def classify(query_rows: int) -> None:
        attention_scores(transformer, latents, time, text, band=None, query_rows=query_rows)

    runs = {"plain forward": forward}
    runs |= {f"{rows} query rows": lambda rows=rows: classify(rows) for rows in (64, 256, 1024)}  # type: ignore[misc]
    peaks: dict[str, int] = {}
    for name, run in runs.items():
        with Counter("cpu") as counter:
            run()
        peaks[name] = counter.peak
    found = interleaved({name: timed(run) for name, run in runs.items()}, rounds)
    base = peaks["plain forward"]
    return [
        {
            "run": name,
            "s": timing.seconds,
            "± s": timing.spread,
            "ratio of time": timing.ratio,
            "peak MiB": peaks[name] / 2**20,
            "ratio of memory": peaks[name] / base,
        }
        for name, timing in found.items()
    ]


def main() -> None:
    """Measures one block."""
    parser = arguments(__doc__ or "", "classification")
    parser.add_argument("--full", action="store_true", help="32,760 tokens")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with TemporaryDirectory() as temporary:
        folder = write_configs(Path(temporary) / "wan", {**WAN_1_3B, "num_layers": 1})
        rows = measure(
            random_transformer(folder, "float32", "cpu"), GRIDS["full" if asked.full else "quick"], asked.rounds
        )
    report(asked.out, "Head classification", rows, machine("cpu", "float32"))


if __name__ == "__main__":
    main()
