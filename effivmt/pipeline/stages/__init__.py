"""The stages of a transfer, each (inputs, params) -> artifact in the store; Prefect, DVC and the CLI call these.

    ingest -> heads -> spatial -> temporal -> render -> evaluate
           `-> mask, where only a part of the motion is wanted; temporal and evaluate then read it instead of ingest
           `-> first frame, where the clip's own is given to heads and temporal, for videos of images

A module holds one stage: its store key, the stage, and its work. A key holds the digests of the very files that the
stage reads and the params that it reads, so a new prompt re-renders and never re-tunes, and a new lambda re-tunes
stage 3 only. The work imports torch when it runs: asking for what the store has takes none.
"""

from effivmt.pipeline.stages.adapters import Strengths
from effivmt.pipeline.stages.arrangement import Arrangement, arrange
from effivmt.pipeline.stages.evaluation import evaluate
from effivmt.pipeline.stages.first_frame import check_clip_images, check_images
from effivmt.pipeline.stages.head_classification import heads
from effivmt.pipeline.stages.ingestion import ingest
from effivmt.pipeline.stages.merging import merge
from effivmt.pipeline.stages.motion_mask import mask
from effivmt.pipeline.stages.rendering import RenderedVideo, render
from effivmt.pipeline.stages.spatial_tuning import spatial
from effivmt.pipeline.stages.temporal_tuning import temporal
from effivmt.pipeline.stages.text_embedding import check_texts, embed_clip, embed_texts

STAGES = ("ingest", "heads", "spatial", "temporal", "render", "evaluate")
"""The stages that every clip goes through."""
MASK = "mask"
"""The stage that only a clip has which asks for a part of its motion; it comes after the first."""

__all__ = [
    "MASK",
    "STAGES",
    "Arrangement",
    "RenderedVideo",
    "Strengths",
    "arrange",
    "check_clip_images",
    "check_images",
    "check_texts",
    "embed_clip",
    "embed_texts",
    "evaluate",
    "heads",
    "ingest",
    "mask",
    "merge",
    "render",
    "spatial",
    "temporal",
]
