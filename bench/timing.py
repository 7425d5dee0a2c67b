"""Timing side by side: cases take turns in one run; a table of medians and ratios is printed, and written as JSON."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from effivmt.planning.machine import matmul_rate

Value = str | float | int | None


@dataclass(frozen=True)
class Timing:
    """Median seconds of a case, half the distance of its quartiles, and the median ratio to the first case's round."""

    seconds: float
    spread: float
    ratio: float


def arguments(description: str, name: str) -> argparse.ArgumentParser:
    """The options that every script has; `name` is that of its JSON file."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("out/perf") / f"{name}.json", help="the JSON file to write")
    parser.add_argument("--rounds", type=int, default=5, help="times that each case has its turn")
    parser.add_argument("--threads", type=int, default=1, help="threads of the processor")
    return parser


def interleaved(cases: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Timing]:
    """Calls each case once a round, in turn; a case returns its seconds. The first round warms up and is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds + 1):
        for name, case in cases.items():
            seconds[name].append(case())
    kept = {name: values[1:] for name, values in seconds.items()}
    first = next(iter(kept.values()))
    return {
        name: Timing(
            statistics.median(values),
            _half_spread(values),
            statistics.median(value / base for value, base in zip(values, first, strict=True)),
        )
        for name, values in kept.items()
    }


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """A case of `interleaved` that is one call of `run`."""

    def case() -> float:
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return case


def machine(device: str, dtype: str) -> dict[str, Value]:
    """This machine: its name, threads, versions, and the rates that floors are made of."""
    on_gpu = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": dtype,
        "matmul_flops_per_second": matmul_rate(device, dtype),
        "bytes_per_second": _bandwidth(device),
        "load": None if on_gpu else os.getloadavg()[0],
    }


def report(path: Path, title: str, rows: Sequence[Mapping[str, Value]], facts: Mapping[str, Any]) -> None:
    """Prints the rows, which have the same columns, as a table, and writes them with the facts as JSON."""
    print(table(rows, title))
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"title": title, "machine": facts, "rows": [dict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")


def table(rows: Sequence[Mapping[str, Value]], title: str = "") -> str:
    """Rows of the same columns as a Markdown table under its title."""
    cells = [list(rows[0]), *([_shown(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([f"**{title}**", "", *lines] if title else lines)


def _shown(value: Value) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _half_spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    return (quartiles[2] - quartiles[0]) / 2


def _bandwidth(device: str) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.ones(2**24, device=device)
    target = torch.empty_like(source)
    seconds = [timed(lambda: target.copy_(source))() for _ in range(6)][1:]
    return 2 * source.nbytes / statistics.median(seconds)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
