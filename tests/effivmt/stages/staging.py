"""One clip's transfer, stage by stage, and params that differ in some fields."""

from collections.abc import Callable
from dataclasses import dataclass

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.pipeline import stages
from effivmt.pipeline.callbacks import Callback
from effivmt.pipeline.stages import RenderedVideo
from effivmt.pipeline.workspace import Workspace
from effivmt.store.artifact import Artifact


class ProgressCallback(Callback):
    """Passes the progress of a stage on to a function (stage, units done, units in all)."""

    def __init__(self, function: Callable[[str, int, int], None]) -> None:
        self.function = function

    def on_stage_progress(self, stage: str, done: int, total: int) -> None:
        self.function(stage, done, total)


@dataclass
class Transfer:
    """The artifacts of one clip."""

    ingest: Artifact
    heads: Artifact
    spatial: Artifact
    temporal: Artifact
    render: list[RenderedVideo]
    evaluate: Artifact

    def made(self) -> set[str]:
        """The stages that had to run."""
        single = {name: [getattr(self, name)] for name in stages.STAGES if name != "render"}
        videos = [a for r in self.render for a in (r.artifact, r.without_adapter) if a is not None]
        found = single | {"render": videos}
        return {name for name, artifacts in found.items() if not all(artifact.cached for artifact in artifacts)}

    def digests(self) -> dict[str, str]:
        """Content of every artifact that does not depend on the clock."""
        return {name: getattr(self, name).content_digest for name in stages.STAGES if name != "render"} | {
            f"render_{i}": result.artifact.content_digest for i, result in enumerate(self.render)
        }


def tune(work: Workspace, clip: Clip) -> tuple[Artifact, Artifact, Artifact, Artifact]:
    """The first four stages."""
    ingested = stages.ingest(work, clip)
    heads = stages.heads(work, clip, ingested)
    spatial = stages.spatial(work, clip, ingested, heads)
    return ingested, heads, spatial, stages.temporal(work, clip, ingested, heads, appearance=spatial)


def transfer(work: Workspace, clip: Clip) -> Transfer:
    tuned = tune(work, clip)
    rendered = stages.render(work, clip.prompts, tuned[3].path / "adapter")
    return Transfer(*tuned, rendered, stages.evaluate(work, clip, tuned[0], rendered))


def changed(params: Params, **sections: dict[str, object]) -> Params:
    """Params with some fields of some sections changed, checked as if read from a file."""
    tree = params.model_dump()
    for name, fields in sections.items():
        tree[name] |= fields
    return Params.model_validate(tree)
