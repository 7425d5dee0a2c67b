"""Where the steps of one process work: the store, the params, the backbone, and the versions that keys are made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.method.backbone_folder import BackboneFolder, find_backbone
from effivmt.store.artifact import Artifact, Key
from effivmt.store.store import Store
from effivmt.versions import VERSIONS

if TYPE_CHECKING:
    from effivmt.method.backbone import Backbone

Progress = Callable[[str, int, int], None]
"""Called with (stage, units done, units in all)."""


def _silent(stage: str, done: int, total: int) -> None:
    pass


@dataclass
class Workspace:
    """Where the steps of one process work: the store, the params, the backbone (loaded once) and who watches."""

    store: Store
    params: Params
    progress: Progress = _silent
    force: frozenset[str] = frozenset()
    """Stages to run again even where the store has them."""
    loaded: dict[str, object] = field(default_factory=dict, repr=False)
    """The backbone's folder and the backbone, once asked for; workspaces that share it load them once."""

    @property
    def folder(self) -> BackboneFolder:
        """The backbone's folder, found and digested on first use."""
        if "folder" not in self.loaded:
            self.loaded["folder"] = find_backbone(self.params.backbone.path, self._memo)
        return self.loaded["folder"]

    @property
    def backbone(self) -> "Backbone":
        """The backbone, made on first use."""
        if "backbone" not in self.loaded:
            from effivmt.method.backbone import Backbone

            self.loaded["backbone"] = Backbone(self.params.backbone, self._memo)
        return self.loaded["backbone"]

    @property
    def _memo(self) -> Path:
        return self.store.root / "backbones.json"

    def for_clip(self, clip: Clip) -> "Workspace":
        """This workspace, with the same backbone, under the clip's own seed if it has one."""
        if clip.seed is None:
            return self
        return replace(self, params=self.params.model_copy(update={"seed": clip.seed}))

    def build(
        self,
        stage: str,
        inputs: Mapping[str, str],
        params: Mapping[str, object],
        make: Callable[[Path, Path], None],
    ) -> Artifact:
        """One artifact of the store under this backbone."""
        return self.store.build(
            Key(stage, VERSIONS[stage], inputs, params, self.folder.digest), make, force=stage in self.force
        )

    def units(self, stage: str) -> Callable[[int, int], None]:
        """The progress of one stage, called with (units done, units in all)."""
        return lambda done, total: self.progress(stage, done, total)
