"""Which artifacts of a store catalogs still need."""

from collections.abc import Sequence
from dataclasses import replace

from effivmt.catalog import Catalog, Clip
from effivmt.errors import EffiVMTError
from effivmt.pipeline.plan import plan_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key, Store
from effivmt.store.upkeep import Entry, with_descendants


def needed_by(work: Workspace, catalogs: Sequence[Catalog], entries: Sequence[Entry]) -> set[str]:
    """Keys of the artifacts that a run of these catalogs under the workspace's params would use.

    entries: those of the store. Of a clip that is not wholly computed, every artifact that was made of its latents
    counts: what its next run needs cannot be told yet. EffiVMTError where a row or a clip of a catalog is faulty, or an
    artifact of it damaged: that a row's artifacts are unused cannot be told either.
    """
    artifacts = [entry for entry in entries if entry.kind == "artifact"]
    needed: set[str] = set()
    for catalog in catalogs:
        if catalog.faults:
            raise EffiVMTError(f"catalog {catalog.path}: {catalog.faults[0]}; nothing is removed: correct it first")
        for clip in catalog.clips:
            used, whole = _used_by(work, catalog, clip)
            started = {artifact.key for artifact in used if artifact.stage != "text"}  # texts are many clips'
            needed |= {artifact.key for artifact in used}
            needed |= set() if whole else with_descendants(started, artifacts)
    return needed


def _used_by(work: Workspace, catalog: Catalog, clip: Clip) -> tuple[list[Artifact], bool]:
    """The artifacts that the store has of a clip, and whether these are all that it needs."""
    asked = _AskedStore(work.store)
    planned = plan_clip(replace(work, store=asked), clip)
    for step in planned:
        if step.action == "fails" or step.why.startswith("damaged"):
            raise EffiVMTError(
                f"catalog {catalog.path}, clip {clip.clip}, {step.stage}: {step.why}; nothing is removed: mend it, or "
                "run the catalog first"
            )
    return asked.found, all(step.action == "hit" for step in planned)


class _AskedStore(Store):
    """A store that remembers which artifacts it was asked for and had."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.root)
        self.found: list[Artifact] = []

    def find(self, key: Key) -> Artifact | None:
        """The key's artifact, as the store finds it."""
        if found := super().find(key):
            self.found.append(found)
        return found
