"""Previews: the first prompt, drawn in a few steps by the adapter as it is while stage 3 tunes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effivmt.pipeline.stages.tensors import load_tensor
from effivmt.pipeline.stages.text_embedding import embed_texts
from effivmt.pipeline.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from effivmt.method.heads import HeadMap

SAMPLING_STEPS = 6
"""A preview has this many sampling steps at most: a hundredth of the time of stage 3 on wan-tiny, roughly."""


@dataclass(frozen=True)
class Previewer:
    """Draws a prompt with the motion LoRA as it is, over the merged appearance LoRA."""

    work: Workspace
    heads: "HeadMap"
    prompt: str

    def __call__(self, step: int, weights: "Mapping[str, torch.Tensor]") -> None:
        """weights: as `tune_temporal` has them after `step` steps; the transformer is stock meanwhile."""
        from effivmt.method.adapter import fused, to_stock_layout
        from effivmt.method.rendering import draw

        work, backbone = self.work, self.work.backbone
        assert work.on_preview is not None
        params = work.params.render
        params = params.model_copy(update={"steps": min(SAMPLING_STEPS, params.steps)})
        texts = embed_texts(work, [self.prompt, params.negative_prompt])
        prompt, negative = (load_tensor(texts[text], "embedding") for text in (self.prompt, params.negative_prompt))
        expert = backbone.experts[0]
        motion = (to_stock_layout(weights, self.heads), params.motion_strength)
        with fused(backbone.transformer_of(expert), {"temporal": motion}):
            frames = draw(backbone, prompt, negative, params=params, size=work.params.ingest, seed=params.seeds[0])
        backbone.keep(expert.component)
        work.on_preview(frames, step, work.params.temporal.steps)


def previewer(work: Workspace, heads: "HeadMap", prompts: Sequence[str]) -> Previewer | None:
    """What draws previews; None where nothing receives them, and without one whole transformer on its device."""
    if work.on_preview is None or not prompts or work.memory.offloaded_blocks or work.folder.shape.experts[1:]:
        return None
    return Previewer(work, heads, prompts[0])
