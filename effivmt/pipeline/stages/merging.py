"""Stage merge: several adapters become one, which renders, registers and exports like any."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from effivmt.method.adapter_manifest import read_facts
from effivmt.pipeline.stages.adapters import AdapterFolder, Strengths, open_adapter
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact


def merge(work: Workspace, adapters: Sequence[Path], strengths: Sequence[Strengths]) -> Artifact:
    """The sum of adapter folders, each at its strengths; files: adapter/ (the adapter folder).

    AdapterError where a folder is damaged, and where they were made for different backbones.
    """
    folders = [open_adapter(folder) for folder in adapters]
    inputs = {
        f"{number}_{name}": digest
        for number, folder in enumerate(folders)
        for name, digest in read_facts(folder.path)["files"].items()
        if name in folder.digests or name.endswith(".parquet")
    }
    settings = {"strengths": [[one.appearance, one.motion] for one in strengths]}
    return work.store.build(work.key("merge", inputs, settings), partial(_merge, folders=folders, strengths=strengths))


def _merge(out: Path, _scratch: Path, *, folders: Sequence[AdapterFolder], strengths: Sequence[Strengths]) -> None:
    from effivmt.method.adapter import save_adapter
    from effivmt.method.adapter_merge import Part, merge_adapters

    parts = [Part(folder.load(), one.appearance, one.motion) for folder, one in zip(folders, strengths, strict=True)]
    merged = merge_adapters(parts)
    weights, low_noise = (merged.spatial, merged.temporal), merged.low_noise
    save_adapter(out / "adapter", *weights, merged.heads, facts=merged.facts, low_noise=low_noise)
