"""The adapter folder: the result of tuning, which the registry stores and users load.

`spatial.safetensors` and `temporal.safetensors` are LoRAs of the *stock* transformer in diffusers' layout: the rows of
B (q, k, v) and the columns of A (out) are in the original head order, with zeros for the heads of the other kind, so
`WanPipeline.load_lora_weights(folder, weight_name="spatial.safetensors")` needs no code of ours. `comfyui.safetensors`
joins both by rank concatenation.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from effivmt.errors import AdapterError
from effivmt.method.adapter_manifest import AdapterFacts, BackboneFacts, read_facts
from effivmt.method.branch_lora import PROJECTIONS
from effivmt.method.dual_path import channels_of
from effivmt.method.heads import BRANCHES, HeadMap, load_head_map, save_head_map
from effivmt.method.side_path import SidedLinear
from effivmt.store.digests import sha256_file

_COMFYUI_NAMES = dict(zip(PROJECTIONS, ("q", "k", "v", "o"), strict=True))


@dataclass(frozen=True)
class Adapter:
    """An adapter in memory: stock-layout LoRA weights of each branch, the head map, and what it was made from."""

    spatial: dict[str, torch.Tensor]
    temporal: dict[str, torch.Tensor]
    heads: HeadMap
    facts: AdapterFacts


def to_stock_layout(weights: Mapping[str, torch.Tensor], heads: HeadMap) -> dict[str, torch.Tensor]:
    """Scatters LoRA weights of split modules back to the stock head order, zeros elsewhere.

    Takes `blocks.0.attn1.to_q.spatial.lora_A` (as in `tuning.TuningResult.weights`) and so on, returns
    `transformer.blocks.0.attn1.to_q.lora_A.weight` and so on. Weights of whole projections, named
    `blocks.0.attn1.to_q.lora_A`, stay as they are.
    """
    stock = {}
    for name, weight in weights.items():
        module, branch, side = _parse(name)
        layer, projection = int(module.split(".")[1]), module.split(".attn1.")[1]
        is_temporal = heads.is_temporal[layer]
        if branch is not None and (projection == "to_out.0") == (side == "lora_A"):
            axis = 1 if side == "lora_A" else 0
            width = weight.shape[axis] // int((is_temporal == (branch == "temporal")).sum())
            shape = list(weight.shape)
            shape[axis] = len(is_temporal) * width
            weight = weight.new_zeros(shape).index_copy(axis, channels_of(is_temporal, width)[branch], weight)
        stock[f"transformer.{module}.{side}.weight"] = weight.contiguous()
    return stock


def save_adapter(
    folder: Path,
    spatial: Mapping[str, torch.Tensor],
    temporal: Mapping[str, torch.Tensor],
    heads: HeadMap,
    *,
    facts: AdapterFacts,
) -> None:
    """Writes an adapter folder from stock-layout weights; `facts` go into adapter.json and the model card."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(spatial), folder / "spatial.safetensors", metadata={"format": "pt"})
    save_file(dict(temporal), folder / "temporal.safetensors", metadata={"format": "pt"})
    save_file(to_comfyui(spatial, temporal), folder / "comfyui.safetensors", metadata={"format": "pt"})
    save_head_map(folder / "heads.parquet", heads)
    tuned = [branch for branch, weights in zip(BRANCHES, (spatial, temporal), strict=True) if weights]
    (folder / "README.md").write_text(_card(facts, tuned), encoding="utf-8")
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.name != "adapter.json"}
    document = {"format": "effivmt-adapter", "version": 1, **facts, "files": files}
    (folder / "adapter.json").write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_adapter(folder: Path | str) -> Adapter:
    """Reads an adapter folder; AdapterError for a wrong digest, or a branch that changes nothing or is not finite.

    One of the branches may have no weights at all, where its stage was left out.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    heads, weights = load_head_map(folder / "heads.parquet"), {}
    for branch in BRANCHES:
        try:
            weights[branch] = load_file(folder / f"{branch}.safetensors")
        except (OSError, SafetensorError) as error:
            raise AdapterError(f"adapter file {folder / branch}.safetensors cannot be read: {error}") from error
        if not all(tensor.isfinite().all() for tensor in weights[branch].values()):
            raise AdapterError(f"adapter {folder}: a weight of its {branch} branch is not finite; tune it again")
        if weights[branch] and not any(down.any() and up.any() for _, down, up in _pairs(weights[branch])):
            raise AdapterError(f"adapter {folder}: its {branch} branch is zero and changes nothing; tune it again")
    if not any(weights.values()):
        raise AdapterError(f"adapter {folder}: it has no weights at all and changes nothing; tune it again")
    return Adapter(weights["spatial"], weights["temporal"], heads, facts)


def check_fits(adapter: Adapter, transformer: WanTransformer3DModel, backbone: BackboneFacts | None = None) -> None:
    """Raises AdapterError, naming both sides, unless the adapter was made for this backbone.

    `backbone` says whose transformer it is. Its weights must be those that the adapter was tuned on; an adapter up to
    version 0.1 knows the digest of the whole backbone alone.
    """
    made_for = adapter.facts.get("backbone")
    if backbone is not None and made_for is not None:
        whose, asked, given = "", made_for["digest"], backbone["digest"]
        if "transformer" in made_for and "transformer" in backbone:
            whose, asked, given = "transformer ", made_for["transformer"], backbone["transformer"]
        if asked != given:
            raise AdapterError(
                f"the adapter was made for backbone {made_for['id']} ({whose}digest {asked[:12]}) but this backbone "
                f"has {whose}digest {given[:12]}; use the backbone it was made for"
            )
    modules = dict(transformer.named_modules())
    for weights in (adapter.spatial, adapter.temporal):
        for module, down, up in _pairs(weights):
            linear = modules.get(module)
            if not isinstance(linear, nn.Linear):
                raise AdapterError(
                    f"the adapter has a LoRA of {module} but the backbone has no such linear layer; "
                    "use the backbone it was made for"
                )
            shapes = (tuple(up.shape), tuple(down.shape))
            if shapes != ((linear.out_features, len(down)), (len(down), linear.in_features)):
                raise AdapterError(
                    f"the adapter's LoRA of {module} has B {shapes[0]} and A {shapes[1]} but the backbone's layer "
                    f"needs ({linear.out_features}, R) and (R, {linear.in_features}); use the backbone it was made for"
                )
    config = transformer.config
    layers_heads = (config["num_layers"], config["num_attention_heads"])
    if adapter.heads.is_temporal.shape != layers_heads:
        raise AdapterError(
            f"the adapter's head map has (layers, heads) {adapter.heads.is_temporal.shape} but the backbone has "
            f"{layers_heads}; use the backbone it was made for"
        )


@contextmanager
def fused(
    transformer: WanTransformer3DModel, branches: Mapping[str, tuple[Mapping[str, torch.Tensor], float]]
) -> Iterator[WanTransformer3DModel]:
    """Adds LoRAs to a stock transformer while the context lasts: W + strength * B A.

    `branches` maps a name to (stock-layout weights, strength). Weights in float32 are merged in place, at no cost a
    step; their originals wait in host memory, also where the transformer is on a GPU. Beside weights of lower precision
    the LoRAs stay in float32, as merging would round small updates away. On leaving, the original bytes are back.
    """
    loras: dict[str, list[tuple[torch.Tensor, torch.Tensor, float]]] = {}
    for weights, strength in branches.values():
        for module, down, up in _pairs(weights):
            if strength != 0:
                loras.setdefault(module, []).append((down, up, strength))
    replaced: dict[str, nn.Linear] = {}
    merged: list[tuple[nn.Linear, torch.Tensor]] = []
    try:
        for module, parts in loras.items():
            linear = cast(nn.Linear, transformer.get_submodule(module))
            device = transformer.device  # where it computes: an offloaded weight waits elsewhere
            sides = [
                (down.to(device, torch.float32), up.to(device, torch.float32), strength) for down, up, strength in parts
            ]
            if linear.weight.dtype == torch.float32:
                merged.append((linear, linear.weight.detach().to("cpu", copy=True)))
                linear.weight.detach().add_(sum(strength * (up @ down) for down, up, strength in sides))
            else:
                replaced[module] = linear
                transformer.set_submodule(module, _beside(linear, sides))
        yield transformer
    finally:
        for linear, original in merged:
            linear.weight.detach().copy_(original)
        for module, linear in replaced.items():
            transformer.set_submodule(module, linear)


def _beside(linear: nn.Linear, parts: Sequence[tuple[torch.Tensor, torch.Tensor, float]]) -> SidedLinear:
    """A Linear that computes W + the sum of strength * B A, for parts (A, B, strength) in float32; W stays as it is."""
    down = torch.cat([down for down, _, _ in parts])
    return SidedLinear(linear, down, torch.cat([strength * up for _, up, strength in parts], dim=1))


def to_comfyui(spatial: Mapping[str, torch.Tensor], temporal: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Both branches as one LoRA of rank R_spatial + R_temporal, under ComfyUI's names for Wan."""
    joined = {}
    for name in sorted({*spatial, *temporal}):
        _, _, layer, _, rest = name.split(".", 4)
        projection, side = rest.removesuffix(".weight").rsplit(".", 1)
        parts = [weights[name] for weights in (spatial, temporal) if name in weights]
        target = f"diffusion_model.blocks.{layer}.self_attn.{_COMFYUI_NAMES[projection]}.{side}.weight"
        joined[target] = torch.cat(parts, dim=0 if side == "lora_A" else 1).contiguous()
    return joined


def _pairs(weights: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Module, A and B of every LoRA in stock-layout weights; AdapterError for another name, and for A or B alone."""
    for name in dict.fromkeys(name.replace(".lora_B.", ".lora_A.") for name in weights):
        module = name.removeprefix("transformer.").removesuffix(".lora_A.weight")
        halves = [f"transformer.{module}.{side}.weight" for side in ("lora_A", "lora_B")]
        if name != halves[0] or not weights.keys() >= set(halves):
            raise AdapterError(
                f"the adapter has weights of {module} but not {' and '.join(halves)}, as stock diffusers names them; "
                "make or pull it again"
            )
        yield module, weights[halves[0]], weights[halves[1]]


def _parse(name: str) -> tuple[str, str | None, str]:
    """Projection, branch (None: all its heads) and side of a LoRA weight."""
    module, side = name.rsplit(".", 1)
    projection, _, branch = module.rpartition(".")
    assert side in ("lora_A", "lora_B"), name
    return (projection, branch, side) if branch in BRANCHES else (module, None, side)


def _card(facts: AdapterFacts, tuned: Sequence[str]) -> str:
    """The model card, README.md of the adapter folder; its code loads the branches that were `tuned`."""
    names = {branch: name for branch, name in (("spatial", "appearance"), ("temporal", "motion")) if branch in tuned}
    loads = "\n".join(
        f'pipe.load_lora_weights(FOLDER, weight_name="{branch}.safetensors", adapter_name="{name}")'
        for branch, name in names.items()
    )
    chosen = json.dumps(list(names.values())), json.dumps([1.0] * len(names))
    listed = "\n".join(f"- {name}: {json.dumps(value, sort_keys=True)}" for name, value in sorted(facts.items()))
    return f"""# EffiVMT motion adapter

A pair of LoRAs for a Wan-2.1 transformer that carries the motion of one reference clip to new prompts
(arXiv 2506.05207). `temporal.safetensors` holds the motion, `spatial.safetensors` the appearance of the clip.

```python
pipe = WanPipeline.from_pretrained(BACKBONE)
{loads}
pipe.set_adapters({chosen[0]}, {chosen[1]})
```

ComfyUI: load `comfyui.safetensors` (both, joined) with any LoRA loader.

{listed}
"""
