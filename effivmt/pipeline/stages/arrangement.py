"""How several adapters render together: those of a region act in it, and the others are added up."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from effivmt.pipeline.stages.adapters import Strengths, open_adapter
from effivmt.pipeline.stages.merging import merge
from effivmt.pipeline.stages.rendering import Regional
from effivmt.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Arrangement:
    """What `render` takes for several adapters.

    work: a workspace whose strengths are those of `adapter`; adapter: what acts outside of all regions, None for the
    backbone alone; regional: what acts in regions.
    """

    work: Workspace
    adapter: Path | None
    regional: tuple[Regional, ...] = ()


def arrange(work: Workspace, adapters: Sequence[Path], strengths: Sequence[Strengths]) -> Arrangement:
    """Adapter folders, each at its strengths, for one video; one alone acts everywhere, whether it has a region or not.

    Of several, each with a region acts in it, and the sum of the others everywhere else. AdapterError where a folder is
    damaged, and where those that are added up were made for different backbones.
    """
    if len(adapters) == 1:
        return Arrangement(_at(work, strengths[0]), adapters[0])
    given = [(open_adapter(folder), each) for folder, each in zip(adapters, strengths, strict=True)]
    regional = tuple(Regional(folder, each) for folder, each in given if folder.region is not None)
    others = [(folder.path, each) for folder, each in given if folder.region is None]
    if not others:
        return Arrangement(work, None, regional)
    if len(others) == 1:
        return Arrangement(_at(work, others[0][1]), others[0][0], regional)
    merged = merge(work, [folder for folder, _ in others], [each for _, each in others])
    return Arrangement(_at(work, Strengths(1.0, 1.0)), merged.folder("adapter"), regional)


def _at(work: Workspace, strengths: Strengths) -> Workspace:
    """A workspace whose renderings have these strengths."""
    own = {"appearance_strength": strengths.appearance, "motion_strength": strengths.motion}
    render = work.params.render.model_copy(update=own)
    return replace(work, params=work.params.model_copy(update={"render": render}))
