"""Adapter folders as the stages take them: verified first, and loaded when they are used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from effivmt.errors import AdapterError
from effivmt.method.adapter_manifest import REGION, expert_names, read_facts
from effivmt.method.experts import named

if TYPE_CHECKING:
    from effivmt.method.adapter import Adapter


@dataclass(frozen=True)
class Strengths:
    """How strongly an adapter's looks and motion count beside those of others."""

    appearance: float
    motion: float


@dataclass
class AdapterFolder:
    """An adapter folder whose files were verified; the weights are loaded when a video is rendered with them.

    digests: of the weights, by file; region: of the region, None where the adapter has none.
    """

    path: Path
    digests: Mapping[str, str]
    region: str | None = None
    loaded: "Adapter | None" = field(default=None, repr=False)

    def load(self) -> "Adapter":
        """The weights, loaded once; AdapterError where the folder is no longer the one that was opened."""
        from effivmt.method.adapter import load_adapter

        if self.loaded is None:
            self.loaded = load_adapter(self.path)
            again = open_adapter(self.path)
            if (again.digests, again.region) != (self.digests, self.region):
                raise AdapterError(f"adapter {self.path} has been replaced by another meanwhile; try again")
        return self.loaded


def open_adapter(folder: Path) -> AdapterFolder:
    """Verifies an adapter folder; AdapterError where it is damaged or none."""
    facts = read_facts(folder)
    names = [
        f"{named(branch, expert)}.safetensors" for expert in expert_names(facts) for branch in ("spatial", "temporal")
    ]
    return AdapterFolder(folder, {name: facts["files"][name] for name in names}, facts["files"].get(REGION))
