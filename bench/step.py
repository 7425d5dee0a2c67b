"""A training step: ours of both stages beside a dense one and a plain LoRA step of diffusers and peft.

All steps have the same rank; the plain one sees as many tokens, in as large a batch, as our step of stage 3, with a
LoRA on all heads. `--size middle` has 12 heads of 64 channels, 8 layers and 3,920 tokens. With `--compile`, the blocks
of both transformers are compiled by `torch.compile`, ours as `backbone.compile` does it, and the JSON file is
step_compiled.json.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from effivmt.config import Params
from effivmt.embedded import WAN_TINY, find_embedded
from effivmt.method.compiling import compiled_blocks
from effivmt.method.memory_choices import MemoryChoices
from effivmt.planning.stages import StageCounter
from timing import Timing, Value, arguments, interleaved, machine, report
from tuned_steps import plain_step, spatial_step, temporal_step
from wan_shapes import MIDDLE, random_transformer, write_configs

ENDLESS = {"steps": 1000, "save_every": 10_000}
SIZES: Mapping[str, dict[str, dict[str, int]]] = {
    "embedded": {},
    "middle": {
        "ingest": {"height": 448, "width": 448},
        "temporal": {"batch": 1},
        "spatial": {"batch": 1},
        "backbone": {"max_sequence_length": 512},
    },
}


def params_of(size: str) -> Params:
    """The default params, at a size of this script."""
    tree: dict[str, dict[str, int]] = {"spatial": {}, "temporal": {}, **SIZES[size]}
    tree |= {stage: {**tree[stage], **ENDLESS} for stage in ("spatial", "temporal")}
    return Params.model_validate(tree)


def measure(size: str, folder: Path, rounds: int, *, dense: bool, compiled: bool) -> list[Mapping[str, Value]]:
    """Rows of the steps at one size, with configs in `folder`."""
    params = params_of(size)
    counter = StageCounter(folder, params)
    latents = torch.randn(1, *counter.latent_shape(counter.latent_frames), generator=torch.Generator().manual_seed(0))
    ours, plain = (random_transformer(folder, "float32", "cpu") for _ in range(2))
    cases = {
        "plain LoRA, all heads": plain_step(plain, params, latents, frames=params.sampling.latent_frames),
        "temporal": temporal_step(ours, params, latents),
        "spatial": spatial_step(ours, params, latents),
    }
    everything = params.model_copy(update={"sampling": params.sampling.model_copy(update={"mode": "dense"})})
    if dense:
        cases["dense"] = temporal_step(ours, everything, latents)
    with compiled_blocks(ours, needed=compiled), compiled_blocks(plain, needed=compiled):
        found = interleaved(cases, rounds)
    rate = machine("cpu", "float32")["matmul_flops_per_second"]
    assert isinstance(rate, float)
    steps = {
        "temporal": counter.cost("temporal", MemoryChoices()).flops / params.temporal.steps,
        "spatial": counter.cost("spatial", MemoryChoices()).flops / params.spatial.steps,
    }
    return [_row(size, name, timing, flops=steps.get(name), rate=rate) for name, timing in found.items()]


def _row(size: str, name: str, timing: Timing, *, flops: float | None, rate: float) -> Mapping[str, Value]:
    """A step's row; its floor is its FLOPs at this machine's matmul rate."""
    return {
        "size": size,
        "step": name,
        "ms": 1000 * timing.seconds,
        "± ms": 1000 * timing.spread,
        "ratio to plain": timing.ratio,
        "GFLOP": None if flops is None else flops / 1e9,
        "times its floor": None if flops is None else timing.seconds * rate / flops,
    }


def main() -> None:
    """Measures the sizes that are asked for."""
    parser = arguments(__doc__ or "", "step")
    parser.add_argument("--size", choices=[*SIZES, "all"], default="embedded")
    parser.add_argument("--compile", action="store_true", help="compiles the blocks of both, ours and the plain one's")
    parser.add_argument("--no-dense", action="store_true", help="leaves the dense step out, which takes longest")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.compile:
        # The steps share their code; each is compiled for its own shape, as where a stage runs alone.
        torch._dynamo.config.automatic_dynamic_shapes = False
        if asked.out == parser.get_default("out"):
            asked.out = asked.out.with_stem("step_compiled")
    rows: list[Mapping[str, Value]] = []
    with TemporaryDirectory() as temporary:
        for size in SIZES if asked.size == "all" else [asked.size]:
            folder = find_embedded(WAN_TINY)
            if size == "middle":
                folder = write_configs(Path(temporary) / size, MIDDLE)
            rows += measure(size, folder, asked.rounds, dense=not asked.no_dense, compiled=asked.compile)
    report(asked.out, "A training step", rows, {**machine("cpu", "float32"), "compile": str(asked.compile).lower()})


if __name__ == "__main__":
    main()
