"""What a run would do with a clip, stage by stage, and why; found without doing it."""

from dataclasses import dataclass

from effivmt.catalog import Clip
from effivmt.errors import EffiVMTError
from effivmt.pipeline.catalog_run import Noting
from effivmt.pipeline.stages import STAGES
from effivmt.pipeline.transfer import UNWATCHED, run_clip
from effivmt.pipeline.workspace import Workspace
from effivmt.store.artifact import Artifact, Key
from effivmt.versions import VERSIONS


@dataclass(frozen=True)
class Planned:
    """What a run would do with one stage of a clip: `hit`, `to do` (and why) or `waits` (for an earlier stage)."""

    stage: str
    action: str
    why: str


class _ToDo(Exception):
    """Planning has come to a stage that would run."""


class _PlanningWorkspace(Workspace):
    """A workspace that makes nothing: the first artifact that the store lacks ends the planning."""

    def build(self, stage, inputs, params, make) -> Artifact:
        key = Key(stage, VERSIONS[stage], inputs, params, self.folder.digest)
        if stage in self.force:
            raise _ToDo("forced")
        if (found := self.store.find(key)) is None:
            why = self.store.explain(key)
            raise _ToDo(f"its text is new: {why}" if stage == "text" else why)
        return found


def plan_clip(work: Workspace, clip: Clip) -> list[Planned]:
    """What a run would do with each stage of a clip; changes nothing."""
    planning = _PlanningWorkspace(work.store, work.params, force=work.force, loaded=work.loaded)
    noting = Noting(UNWATCHED)
    try:
        run_clip(planning, clip, watch=noting)
        why, action = "", "hit"
    except _ToDo as reason:
        why, action = str(reason), "to do"
    except EffiVMTError as error:
        why, action = " ".join(str(error).split()), "fails"
    hits = [run.stage for run in noting.runs]
    planned = [Planned(stage, "hit", "") for stage in hits]
    if action != "hit":
        rest = STAGES[len(hits) :]
        planned.append(Planned(rest[0], action, why))
        planned += [Planned(stage, "waits", f"for {rest[0]}") for stage in rest[1:]]
    return planned
