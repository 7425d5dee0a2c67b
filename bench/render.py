"""Rendering with wan-tiny: the stock pipeline, ours without an adapter, and ours with one."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from effivmt.config import IngestParams, Params, RenderParams
from effivmt.method.adapter import Adapter
from effivmt.method.backbone import Backbone
from effivmt.method.rendering import render
from effivmt.planning.runs import half_temporal
from timing import Value, arguments, interleaved, machine, report, timed
from wan_shapes import weak_lora

RANK = 16


def random_adapter(backbone: Backbone) -> Adapter:
    """Weak LoRAs on all heads of both branches."""
    weights = weak_lora(backbone.transformer, RANK)
    return Adapter(weights, dict(weights), half_temporal(backbone.transformer), {"backbone": backbone.found.facts})


def cases_of(backbone: Backbone, params: RenderParams, size: IngestParams) -> Mapping[str, Callable[[], object]]:
    """The renderings, the stock pipeline's first."""
    prompt, negative = backbone.encode_texts(["a red square on a navy background", ""])
    adapter = random_adapter(backbone)
    scheduler = UniPCMultistepScheduler.from_pretrained(
        backbone.folder, subfolder="scheduler", flow_shift=params.flow_shift
    )
    stock = WanPipeline.from_pretrained(backbone.folder, scheduler=scheduler)
    stock.set_progress_bar_config(disable=True)

    def from_stock() -> np.ndarray:
        return stock(
            prompt_embeds=prompt[None],
            negative_prompt_embeds=negative[None],
            height=size.height,
            width=size.width,
            num_frames=size.num_frames,
            num_inference_steps=params.steps,
            guidance_scale=params.guidance_scale,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).frames[0]

    def ours(chosen: Adapter | None) -> np.ndarray:
        return render(backbone, chosen, prompt, negative, params=params, size=size, seed=0)

    return {
        "stock pipeline": from_stock,
        "without adapter": lambda: ours(None),
        "with adapter": lambda: ours(adapter),
    }


def main() -> None:
    """Measures renderings of a few steps."""
    parser = arguments(__doc__ or "", "render")
    parser.add_argument("--steps", type=int, default=4, help="sampling steps")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    params = Params()
    settings = params.render.model_copy(update={"steps": asked.steps})
    cases = cases_of(Backbone(params.backbone.model_copy(update={"device": "cpu"})), settings, params.ingest)
    found = interleaved({name: timed(run) for name, run in cases.items()}, asked.rounds)
    rows: list[Mapping[str, Value]] = [
        {"rendering": name, "s": timing.seconds, "± s": timing.spread, "ratio to stock": timing.ratio}
        for name, timing in found.items()
    ]
    report(asked.out, f"Rendering, {asked.steps} steps", rows, machine("cpu", "float32"))


if __name__ == "__main__":
    main()
