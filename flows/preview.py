"""The first picture of a transfer: drawn without tuning, by FlowMotion, right after the clip was ingested."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from effivmt.benchmark import peer_stages
from effivmt.benchmark.peers import peer_params
from effivmt.catalog import Clip
from effivmt.errors import DamageError, EffiVMTError, in_one_line
from effivmt.pipeline import stages
from effivmt.pipeline.excerpt import load_excerpt
from effivmt.pipeline.outputs import Outputs
from effivmt.pipeline.preview_files import UNTUNED, PreviewFiles
from effivmt.pipeline.workspace import Workspace
from effivmt.store.files import copy_verified

METHOD = "flow_motion"


def draw_untuned(work: Workspace, clip: Clip, out: Path, say: Callable[[str], None]) -> None:
    """Draws the first prompt for the first seed, writes it to the clip's out folder, and says where it is.

    A preview that fails says why; the transfer does not depend on it. A damaged store is left to the transfer, too.
    """
    target = PreviewFiles(Outputs(out / clip.clip, ()), work).place(UNTUNED)
    try:
        ingested = stages.ingest(work, clip)
        work = work.for_clip(clip).for_frames(load_excerpt(ingested).num_frames)
        one = work.params.render.model_copy(update={"seeds": work.params.render.seeds[:1]})
        work = replace(work, params=work.params.model_copy(update={"render": one}))
        params = peer_params(METHOD, {})
        (video,) = peer_stages.render(work, ingested, clip.prompts[0], peer=METHOD, params=params)
        copy_verified(video.artifact, "video.mp4", target)
    except DamageError:
        return
    except EffiVMTError as error:
        say(f"there is no preview: {in_one_line(error)}")
    else:
        say(f"preview without tuning: {target}")
