"""What the stages of Wan take at every level of `backbone.memory`, counted from the configs: no GPU is needed."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from effivmt.method.experts import experts_of
from effivmt.method.memory_choices import MemoryChoices
from effivmt.params_file import load_params
from effivmt.planning.choosing import GIB, choose, make_plan, usable
from effivmt.planning.stages import StageCounter
from timing import Value, report
from wan_shapes import TI2V_VAE, WAN_1_3B, WAN_14B, WAN_14B_I2V, WAN_TI2V_5B, Config, write_configs


@dataclass(frozen=True)
class Kind:
    """A backbone: the preset that it is counted with, its configs, and the noise level at which its experts meet."""

    preset: str
    transformer: Config
    vae: Config | None = None
    boundary: float | None = None


KINDS = {
    "2.1 1.3B": Kind("wan2.1-1.3b", WAN_1_3B),
    "2.1 14B": Kind("wan2.1-14b", WAN_14B),
    "2.1 I2V 14B": Kind("wan2.1-14b", WAN_14B_I2V),
    "2.2 TI2V 5B": Kind("wan2.2-ti2v-5b", WAN_TI2V_5B, TI2V_VAE),
    "2.2 T2V A14B": Kind("wan2.2-t2v-a14b", WAN_14B, boundary=0.875),
}
LEVELS = (80, 48, 24, 16, 12)


def rows_of(name: str, folder: Path, levels: tuple[int, ...]) -> list[Mapping[str, Value]]:
    """A row for each level: the peak of every stage in GiB, the most that the host holds, and what was chosen."""
    kind = KINDS[name]
    configs = write_configs(folder / name.replace(" ", "-"), kind.transformer, kind.vae)
    experts = experts_of(kind.boundary, expand_timesteps=kind.vae is not None)
    counter = StageCounter(configs, load_params(kind.preset), experts)
    rows: list[Mapping[str, Value]] = []
    for level in levels:
        plan = make_plan(counter, choose(counter, level), level, remedies=False)
        peaks: dict[str, Value] = {cost.stage: cost.device_bytes / GIB for cost in plan.costs}
        misfits = ", ".join(misfit.stage for misfit in plan.misfits)
        peaks["host"] = max(cost.host_bytes for cost in plan.costs) / GIB
        row: dict[str, Value] = {"backbone": name, "memory": level, "usable": usable(level) / GIB}
        rows.append(row | peaks | {"does not fit": misfits or "–", "chosen": _words(plan.choices)})
    return rows


def _words(choices: MemoryChoices) -> str:
    """The names of the choices that were made."""
    made = [name.replace("_", " ") for name, chosen in asdict(choices).items() if chosen]
    return ", ".join(made) or "–"


def main() -> None:
    """Counts all backbones, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/perf/memory.json"), help="the JSON file to write")
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all", help="which backbone")
    asked = parser.parse_args()
    rows: list[Mapping[str, Value]] = []
    with TemporaryDirectory() as temporary:
        for name in KINDS if asked.kind == "all" else [asked.kind]:
            rows += rows_of(name, Path(temporary), LEVELS)
    report(asked.out, "Peak of the GPU's memory, GiB", rows, {})


if __name__ == "__main__":
    main()
