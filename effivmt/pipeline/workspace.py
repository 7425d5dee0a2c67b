"""The workspace: the store, the params, the backbone and the callback that all stages of one process share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from effivmt.catalog import Clip
from effivmt.config import NATIVE, Params
from effivmt.embedded import CLIP_TINY, WAN_TINY
from effivmt.errors import BackboneError, ParamsError, in_one_line
from effivmt.evaluation.scorer_folder import ScorerFolder, find_scorer
from effivmt.method.backbone_folder import (
    BackboneFolder,
    check_settings,
    find_backbone,
    find_configs,
    has_weights,
    tuned_experts,
)
from effivmt.method.experts import Expert
from effivmt.method.memory_choices import MemoryChoices
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.healing import heal
from effivmt.planning.memory import choose_memory
from effivmt.store import DEFAULT_STORE, Key, Store
from effivmt.versions import BENCHMARK_VERSIONS, VERSIONS

if TYPE_CHECKING:
    from effivmt.method.backbone import Backbone


CLIP = "openai/clip-vit-large-patch14"
"""The scorer of footage of any kind."""


@dataclass(frozen=True)
class ChosenScorer:
    """The scorer's folder, or None and, in one line, why there is none."""

    folder: ScorerFolder | None
    fault: str = ""


@dataclass
class LoadedBackbone:
    """The backbone's folder, what it does to fit into memory, the backbone itself, and the scorers by name, once they
    were needed.

    weights: whether weights may be fetched. here: whether stages run on this machine.
    """

    folder: BackboneFolder | None = None
    memory: MemoryChoices | None = None
    backbone: "Backbone | None" = None
    scorers: dict[str, ChosenScorer] = field(default_factory=dict)
    weights: bool = True
    here: bool = True


@dataclass(frozen=True)
class Workspace:
    """What all stages of one process share; `open_workspace` makes one.

    force: stages to run again even where the store has their results. loaded: copies of a workspace share it, so that
    the backbone is loaded once. previews: the folder that previews are written to; None: there are none.
    """

    store: Store
    params: Params
    callback: Callback = field(default_factory=Callback)
    force: frozenset[str] = frozenset()
    loaded: LoadedBackbone = field(default_factory=LoadedBackbone, repr=False)
    previews: Path | None = None

    @property
    def folder(self) -> BackboneFolder:
        """The backbone's folder, found and digested on first use.

        BackboneError where it cannot be used; ParamsError where settings do not fit it, or this machine.
        """
        if self.loaded.folder is None:
            params = self.params.backbone
            configs = find_configs(params)
            check_settings(configs, self.params)  # before weights are fetched
            computes = self.loaded.weights and self.loaded.here
            if computes and configs.commit is not None and not has_weights(configs.path):
                self._check_device()
            for trial in heal(self.callback):
                with trial:
                    known, weights = self.store.root / "backbones.json", self.loaded.weights
                    found = find_backbone(params, known, weights=weights, configs=configs)
            self.loaded.folder = found
            if computes and (self.params.backbone.attention != NATIVE or self.params.backbone.compile):
                self._check_machine()
        return self.loaded.folder

    def _check_device(self) -> None:
        """ParamsError where this machine lacks the GPU that the params ask for."""
        from effivmt.method.device import pick_device

        pick_device(self.params.backbone.device, "backbone.device")

    def _check_machine(self) -> None:
        """ParamsError where this machine lacks the attention backend or the compiler that the params ask for."""
        try:
            _ = self.backbone
        except ParamsError:
            self.loaded.folder = None  # so that the next use says it again
            raise

    @property
    def memory(self) -> MemoryChoices:
        """What the stages do to fit into `backbone.memory`, chosen on first use and remembered in the store."""
        if self.loaded.memory is None:
            for trial in heal(self.callback):
                with trial:
                    known = self.store.root / "memory.json"
                    self.loaded.memory = choose_memory(self.params, self.folder.path, known, self.folder.shape.experts)
        assert self.loaded.memory is not None
        return self.loaded.memory

    @property
    def experts(self) -> tuple[Expert, ...]:
        """The backbone's transformers that get an adapter, one after another."""
        return tuned_experts(self.folder, self.params.backbone)

    @property
    def scorer(self) -> ChosenScorer:
        """The params' scorer, found on first use; none where it cannot be had, or does not know what is rendered."""
        name = self.params.evaluate.scorer
        if name not in self.loaded.scorers:
            self.loaded.scorers[name] = self._choose_scorer(name)
        return self.loaded.scorers[name]

    def _choose_scorer(self, name: str) -> ChosenScorer:
        if name == CLIP_TINY and self.folder.id != WAN_TINY:
            return ChosenScorer(
                None,
                f"the metrics of CLIP are left out: evaluate.scorer is {name}, which knows the clips of {WAN_TINY} "
                f"alone, but the backbone is {self.folder.id}; set it to {CLIP}",
            )
        try:
            return ChosenScorer(find_scorer(name, weights=self.loaded.weights))
        except BackboneError as error:
            return ChosenScorer(None, f"the metrics of CLIP are left out: {in_one_line(error)}")

    @property
    def backbone(self) -> "Backbone":
        """The backbone, created on first use."""
        if self.loaded.backbone is None:
            from effivmt.method.backbone import Backbone
            from effivmt.method.verbosity import silence_libraries

            silence_libraries()
            self.loaded.backbone = Backbone(self.params.backbone, self.folder, self.memory)
        return self.loaded.backbone

    def for_clip(self, clip: Clip) -> "Workspace":
        """This workspace under the clip's own seed, if it has one; without stage 2 where its first frame is given."""
        params = self.params
        if self.gives_first_frame(clip):
            params = params.model_copy(update={"spatial": params.spatial.model_copy(update={"steps": 0})})
        if clip.seed is not None:
            params = params.model_copy(update={"seed": clip.seed})
        return self if params is self.params else replace(self, params=params)

    def gives_first_frame(self, clip: Clip) -> bool:
        """Whether stages 1 and 3 are given the clip's own first frame."""
        return bool(clip.images) and (self.params.temporal.first_frame or self.folder.shape.needs_image)

    def for_frames(self, num_frames: int) -> "Workspace":
        """This workspace for a clip of `num_frames` frames, which may be fewer than the params ask for."""
        if num_frames == self.params.ingest.num_frames:
            return self
        ingest = self.params.ingest.model_copy(update={"num_frames": num_frames})
        return replace(self, params=self.params.model_copy(update={"ingest": ingest}))

    def key(self, stage: str, inputs: Mapping[str, str], params: Mapping[str, object]) -> Key:
        """The store key of one artifact of a stage under this backbone."""
        versions = VERSIONS | BENCHMARK_VERSIONS
        return Key(stage, versions[stage], inputs, params, self.folder.digest)

    @property
    def precision(self) -> str:
        """The precision of the transformer, as keys name it."""
        dtype = f"{self.params.backbone.dtype}{', TF32 allowed' if self.tf32 else ''}"
        return f"{dtype}, weights in 8 bits" if self.memory.float8_base else dtype

    @property
    def tf32(self) -> dict[str, object]:
        """What keys of stages without the transformer say of TF32; nothing where the params do not allow it."""
        params = self.params.backbone
        return {"allow_tf32": True} if params.dtype == "float32" and params.allow_tf32 else {}

    @property
    def adapted_precision(self) -> str:
        """The precision of a transformer with an adapter, as keys name it."""
        merged = self.params.backbone.dtype == "float32"
        return self.precision if merged else f"{self.precision}, LoRA in float32"

    def kernels(self, attention: str, *, compiled: bool = False) -> dict[str, object]:
        """What else of how a stage computes its result depends on; keys of torch's own attention do not have it.

        attention: the backend that the stage uses; compiled: whether `backbone.compile` is for it.
        """
        settings: dict[str, object] = {} if attention == NATIVE else {"attention": attention}
        return settings | {"compile": True} if compiled and self.params.backbone.compile else settings

    def forces(self, key: Key) -> bool:
        """Whether the artifact of this key is made again even where the store has it."""
        return key.stage in self.force

    def progress(self, stage: str, part: int = 0, parts: int = 1) -> Callable[[int, int], None]:
        """A function (units done, units in all) that reports the progress of a stage to the callback.

        Of a stage in `parts` parts of as many units each, of which `part` are done.
        """
        return lambda done, total: self.callback.on_stage_progress(stage, part * total + done, parts * total)


def open_workspace(
    params: Params | None = None,
    store: Store | Path | str = DEFAULT_STORE,
    *,
    callback: Callback | None = None,
    force: Sequence[str] = (),
    weights: bool = True,
    here: bool = True,
) -> Workspace:
    """A workspace with these params (default: the preset `tiny`) and this store or its folder, made when first needed.

    Finds the backbone's folder at once, fetching a hub id (weights False: without its weights, for keys and plans
    alone). BackboneError where it cannot be used; ParamsError where settings do not fit it, or where this machine does
    not have the attention backend or the compiler that they ask for (here False: other machines run the stages, and
    each of them looks for these).
    """
    loaded = LoadedBackbone(weights=weights, here=here)
    opened = store if isinstance(store, Store) else Store(Path(store))
    work = Workspace(opened, params or Params(), callback or Callback(), frozenset(force), loaded)
    _ = work.folder
    return work
