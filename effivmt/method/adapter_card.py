"""The model card of an adapter folder, its README.md."""

import json
from collections.abc import Sequence

from effivmt.method.adapter_manifest import AdapterFacts
from effivmt.method.experts import HIGH, LOW, named

_SPOKEN = {"spatial": "appearance", "temporal": "motion"}


def model_card(facts: AdapterFacts, tuned: Sequence[tuple[str, str]]) -> str:
    """Says what the adapter is, and how stock diffusers and ComfyUI load what was `tuned`: pairs (branch, expert)."""
    names = list(dict.fromkeys(_SPOKEN[branch] for branch, _ in tuned))
    chosen = json.dumps(names), json.dumps([1.0] * len(names))
    loads = "\n".join(_load(branch, expert) for branch, expert in tuned)
    listed = "\n".join(f"- {name}: {json.dumps(value, sort_keys=True)}" for name, value in sorted(facts.items()))
    what, comfyui = _about(facts, {expert for _, expert in tuned})
    pipeline = "WanImageToVideoPipeline" if of_images(facts) else "WanPipeline"
    return f"""# EffiVMT motion adapter

{what}

```python
pipe = {pipeline}.from_pretrained(BACKBONE)
{loads}
pipe.set_adapters({chosen[0]}, {chosen[1]})
```

{comfyui}

{listed}
"""


def of_images(facts: AdapterFacts) -> bool:
    """Whether the adapter is of a backbone that always takes an image."""
    return facts.get("pipeline", {}).get("image_to_video", False)


def _load(branch: str, expert: str) -> str:
    into = ", load_into_transformer_2=True" if expert == LOW else ""
    file = f"{named(branch, expert)}.safetensors"
    return f'pipe.load_lora_weights(FOLDER, weight_name="{file}", adapter_name="{_SPOKEN[branch]}"{into})'


def _about(facts: AdapterFacts, experts: set[str]) -> tuple[str, str]:
    """What the LoRAs are, and how ComfyUI loads them."""
    if experts <= {""}:
        model = "Wan-2.2" if facts.get("pipeline", {}).get("expand_timesteps") else "Wan-2.1"
        return (
            f"""A pair of LoRAs for a {model} transformer that carries the motion of one reference clip to new prompts
(arXiv 2506.05207). `temporal.safetensors` holds the motion, `spatial.safetensors` the appearance of the clip.""",
            "ComfyUI: load `comfyui.safetensors` (both, joined) with any LoRA loader.",
        )
    pairs = (
        "A pair of LoRAs for each of the two transformers"
        if LOW in experts
        else "A pair of LoRAs for the high-noise transformer"
    )
    carries = "that carries the motion of one reference clip to new prompts (arXiv 2506.05207)."
    name = "Wan 2.2 I2V A14B" if of_images(facts) else "Wan 2.2 A14B"
    high = f"load `{named('comfyui', HIGH)}.safetensors` (both, joined) after the high-noise model"
    low = f" and `{named('comfyui', LOW)}.safetensors` after the low-noise one" if LOW in experts else ""
    return (
        f"""{pairs} of {name} {carries}
`temporal_…` holds the motion, `spatial_…` the appearance of the clip.""",
        f"ComfyUI: {high}{low}, with any LoRA loader.",
    )
