"""What the stages of Wan 2.1 take at every level of `backbone.memory`, counted from the configs: no GPU is needed."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from effivmt.method.memory_choices import MemoryChoices
from effivmt.params_file import load_params
from effivmt.planning.choosing import GIB, choose, make_plan, usable
from effivmt.planning.stages import StageCounter
from timing import Value, report
from wan_shapes import WAN_1_3B, WAN_14B, write_configs

KINDS = {"1.3B": ("wan2.1-1.3b", WAN_1_3B), "14B": ("wan2.1-14b", WAN_14B)}
LEVELS = (80, 48, 24, 16, 12)


def rows_of(name: str, folder: Path, levels: tuple[int, ...]) -> list[Mapping[str, Value]]:
    """A row for each level: the peak of every stage in GiB, and what was chosen."""
    preset, size = KINDS[name]
    counter = StageCounter(write_configs(folder / preset, size), load_params(preset))
    rows: list[Mapping[str, Value]] = []
    for level in levels:
        plan = make_plan(counter, choose(counter, level), level, remedies=False)
        peaks: dict[str, Value] = {cost.stage: cost.device_bytes / GIB for cost in plan.costs}
        misfits = ", ".join(misfit.stage for misfit in plan.misfits)
        row: dict[str, Value] = {"backbone": name, "memory": level, "usable": usable(level) / GIB}
        rows.append(row | peaks | {"does not fit": misfits or "–", "chosen": _words(plan.choices)})
    return rows


def _words(choices: MemoryChoices) -> str:
    """The names of the choices that were made."""
    made = [name.replace("_", " ") for name, chosen in asdict(choices).items() if chosen]
    return ", ".join(made) or "–"


def main() -> None:
    """Counts both backbones."""
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
