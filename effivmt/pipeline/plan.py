"""What a run would do with a clip, stage by stage, and why, without doing it: it asks the store for every key."""

from dataclasses import dataclass
from typing import Literal

from effivmt.catalog import Clip
from effivmt.errors import DamageError, EffiVMTError, in_one_line
from effivmt.pipeline.excerpt import load_excerpt
from effivmt.pipeline.stages import MASK, STAGES, RenderedVideo, check_clip_images, check_texts
from effivmt.pipeline.stages.adapters import open_adapter
from effivmt.pipeline.stages.evaluation import evaluate_key
from effivmt.pipeline.stages.first_frame import first_frame_key
from effivmt.pipeline.stages.head_classification import HeadSource, heads_key, scope_clips
from effivmt.pipeline.stages.ingestion import ingest_key
from effivmt.pipeline.stages.motion_mask import mask_key
from effivmt.pipeline.stages.rendering import render_jobs, render_key, rendered_videos
from effivmt.pipeline.stages.spatial_tuning import SpatialInputs, spatial_key
from effivmt.pipeline.stages.temporal_tuning import TemporalInputs, temporal_key
from effivmt.pipeline.stages.text_embedding import text_key
from effivmt.pipeline.transfer import adapter_folder
from effivmt.pipeline.workspace import Workspace
from effivmt.store import Artifact, Key

Action = Literal["hit", "to do", "waits", "fails"]


@dataclass(frozen=True)
class PlannedStage:
    """What a run would do with one stage of a clip, and why: `waits` is for an earlier stage."""

    stage: str
    action: Action
    why: str


def plan_clip(work: Workspace, clip: Clip) -> list[PlannedStage]:
    """What a run would do with each stage of a clip; changes nothing, but drops an adapter that is damaged.

    A video that is to be read is probed: one that cannot be decoded fails.
    """
    stages = (STAGES[0], MASK, *STAGES[1:]) if clip.chosen else STAGES
    hits: list[str] = []
    action: Action = "to do"
    try:
        why = _first_missing(work.for_clip(clip), clip, hits)
    except DamageError as damage:
        work.callback.on_damage(damage)
        hits, why = hits[: stages.index(damage.stage)], f"damaged: {damage.path.name} {damage.fault}"
    except EffiVMTError as error:
        action, why = "fails", in_one_line(error)
    planned = [PlannedStage(stage, "hit", "") for stage in hits]
    if missing := stages[len(hits) :]:
        planned.append(PlannedStage(missing[0], action, why))
        planned += [PlannedStage(stage, "waits", f"for {missing[0]}") for stage in missing[1:]]
    return planned


def _first_missing(work: Workspace, clip: Clip, hits: list[str]) -> str:
    """Appends to `hits` the stages whose results the store has; returns why the next one would run, "" after the last.

    The keys are those of `run_clip`, in its order; each needs the artifacts of the stages before it.
    """
    check_texts(work, (clip.caption, *clip.prompts))
    check_clip_images(work, clip)
    if isinstance(ingested := _find(work, ingest_key(work, clip)), str):
        from effivmt.media.video import probe  # slow to import

        probe(clip.video)
        return ingested
    hits.append("ingest")
    seen = ingested
    if clip.chosen:
        if isinstance(masked := _find(work, mask_key(work, clip, ingested)), str):
            return masked
        seen = masked
        hits.append(MASK)
    if isinstance(sources := _find_sources(work, clip, ingested), str):
        return sources
    if isinstance(classified := _find(work, heads_key(work, sources)), str):
        return classified
    hits.append("heads")
    work = work.for_frames(load_excerpt(ingested).num_frames)
    if isinstance(caption := _find_text(work, clip.caption), str):
        return caption
    if isinstance(appearance := _find(work, spatial_key(work, SpatialInputs(ingested, caption, classified))), str):
        return appearance
    hits.append("spatial")
    if isinstance(first := _find_first_frame(work, clip, seen), str):
        return first
    inputs = TemporalInputs(seen, caption, classified, appearance, first)
    if isinstance(motion := _find(work, temporal_key(work, inputs)), str):
        return motion
    hits.append("temporal")
    if isinstance(rendered := _find_rendered(work, clip, motion), str):
        return rendered
    hits.append("render")
    if isinstance(evaluated := _find(work, evaluate_key(work, clip, seen, rendered)), str):
        return evaluated
    hits.append("evaluate")
    return ""


def _find(work: Workspace, key: Key) -> Artifact | str:
    """The artifact of a key, or why it would be made."""
    if key.stage in work.force:
        return "forced"
    return work.store.find(key) or work.store.explain(key)


def _find_text(work: Workspace, text: str) -> Artifact | str:
    found = _find(work, text_key(work, text))
    return f"its text is new: {found}" if isinstance(found, str) else found


def _find_sources(work: Workspace, clip: Clip, ingested: Artifact) -> list[HeadSource] | str:
    of_clip = work.params.heads.scope == "clip"
    if isinstance(embedding := _find_text(work, clip.caption if of_clip else ""), str):
        return embedding
    clips = [ingested]
    if not of_clip:
        clips = []
        for other in scope_clips(work, clip):
            if isinstance(found := _find(work, ingest_key(work, other)), str):
                return found
            clips.append(found)
    sources = []
    for one in clips:
        if isinstance(first := _find_first_frame(work, clip, one), str):
            return first
        sources.append(HeadSource(one, embedding, first))
    return sources


def _find_first_frame(work: Workspace, clip: Clip, ingested: Artifact) -> Artifact | str | None:
    """None where no first frame is given."""
    return _find(work, first_frame_key(work, ingested)) if work.gives_first_frame(clip) else None


def _find_rendered(work: Workspace, clip: Clip, motion: Artifact) -> list[RenderedVideo] | str:
    embeddings = {}
    for text in dict.fromkeys([*clip.prompts, work.params.render.negative_prompt]):
        if isinstance(found := _find_text(work, text), str):
            return found
        embeddings[text] = found
    with adapter_folder(motion) as folder:
        adapter = open_adapter(folder)
    jobs, made = render_jobs(work, clip.prompts, embeddings, adapter, images=clip.images), []
    for job in jobs:
        if isinstance(found := _find(work, render_key(work, job)), str):
            return found
        made.append(found)
    return rendered_videos(jobs, made)
