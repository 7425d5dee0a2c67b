"""Whether a transfer shows previews, and where."""

from dataclasses import replace
from pathlib import Path

from effivmt.catalog import Clip
from effivmt.pipeline.plan import plan_clip
from effivmt.pipeline.workspace import Workspace


def with_previews(work: Workspace, clip: Clip, out: Path) -> Workspace:
    """This workspace, with the folder for a clip's previews where the params ask for them and it is to be tuned.

    Previews are of prompts: there are none where the videos begin with images.
    """
    if not work.params.preview or clip.images:
        return work
    tuned = any(step.stage == "temporal" and step.action == "hit" for step in plan_clip(work, clip))
    return work if tuned else replace(work, previews=out / clip.clip)
