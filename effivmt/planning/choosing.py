"""Chooses what makes a run fit into a GPU's memory, from the counted table of its stages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from effivmt.config import Params
from effivmt.method.memory_choices import MemoryChoices
from effivmt.planning.stages import STAGES, StageCost, StageCounter

GIB = 2**30
RUNGS: Mapping[str, tuple[dict[str, bool], ...]] = {
    "ingest": ({}, {"tiled_decoding": True}),
    "text": ({}, {"text_on_host": True}),
    "heads": ({}, {"offloaded_blocks": True}),
    "spatial": ({}, {"spatial_checkpointing": True}),
    "temporal": (
        {},
        {"temporal_checkpointing": True},
        {"temporal_checkpointing": True, "activations_on_host": True},
    ),
    "render": ({}, {"tiled_decoding": True}, {"tiled_decoding": True, "offloaded_blocks": True}),
}
"""What each stage may choose, the cheapest first; where its last does not do, the base goes to 8 bits.

LoRAs are merged into float32 weights, so those are neither kept in 8 bits nor offloaded.
"""
_REMEDIES: tuple[tuple[str, str, str | int | bool], ...] = (
    ("backbone", "dtype", "bfloat16"),
    ("", "gradient_checkpointing", True),
    ("", "batch", 1),
    ("", "rank", 64),
    ("", "rank", 32),
    ("sampling", "frames", 9),
    ("ingest", "num_frames", 49),
    ("ingest", "num_frames", 33),
)
"""Section (empty: the stage's own), field and value that may make a stage fit, tried in this order, each alone."""


@dataclass(frozen=True)
class Misfit:
    """A stage that does not fit, the bytes that it needs, and the setting that makes it fit; empty: none was found."""

    stage: str
    needed: int
    remedy: str


@dataclass(frozen=True)
class Plan:
    """The cost of every stage under the choices, and those that do not fit into `gigabytes` of memory."""

    gigabytes: float
    choices: MemoryChoices
    costs: tuple[StageCost, ...]
    misfits: tuple[Misfit, ...]


def usable(gigabytes: float) -> int:
    """Bytes for tensors on a GPU of this size: 0.6 GiB hold its context, and a twentieth is lost between tensors."""
    return int((0.95 * gigabytes - 0.6) * GIB)


def choose(counter: StageCounter, gigabytes: float) -> MemoryChoices:
    """The cheapest choices with which most stages fit, all of them where that is possible."""
    low = counter.params.backbone.dtype == "bfloat16"
    bases = (False, True) if low else (False,)
    best: tuple[int, MemoryChoices] | None = None
    for base in bases:
        choices, fitting = MemoryChoices(float8_base=base), 0
        for stage in STAGES:
            candidates = [replace(choices, **rung) for rung in RUNGS[stage] if low or "offloaded_blocks" not in rung]
            fits = [it for it in candidates if counter.cost(stage, it).device_bytes <= usable(gigabytes)]
            choices = fits[0] if fits else candidates[-1]
            fitting += bool(fits)
        if best is None or fitting > best[0]:
            best = fitting, choices
        if fitting == len(STAGES):
            break
    assert best is not None
    return best[1]


def make_plan(counter: StageCounter, choices: MemoryChoices, gigabytes: float, *, remedies: bool = True) -> Plan:
    """The plan of a run under these choices on a device of `gigabytes` GiB; remedies: looked for, which takes time."""
    costs = tuple(counter.cost(stage, choices) for stage in STAGES)
    misfits = tuple(
        Misfit(
            cost.stage,
            cost.device_bytes,
            _remedy(counter, cost.stage, choices, usable(gigabytes)) if remedies else "",
        )
        for cost in costs
        if cost.device_bytes > usable(gigabytes)
    )
    return Plan(gigabytes, choices, costs, misfits)


def _remedy(counter: StageCounter, stage: str, choices: MemoryChoices, most: int) -> str:
    """The first setting under which the stage fits; empty where there is none among those that are tried."""
    for text, params in _changed(counter.params, stage):
        if StageCounter(counter.folder, params, counter.experts).cost(stage, choices).device_bytes <= most:
            return text
    return ""


def _changed(params: Params, stage: str) -> Iterator[tuple[str, Params]]:
    """The remedies that change these params, as a setting, each with the changed params."""
    tree = params.model_dump()
    for section, field, value in _REMEDIES:
        name = section or stage
        old = tree.get(name, {}).get(field)
        if old is None or old == value or (type(value) is int and old < value):
            continue
        update = {name: getattr(params, name).model_copy(update={field: value})}
        yield f"{name}.{field}={str(value).lower()}", params.model_copy(update=update)
