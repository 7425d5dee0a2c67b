"""The adapter folder: the result of tuning, which the registry stores and users load.

`spatial.safetensors` and `temporal.safetensors` are LoRAs of the *stock* transformer in diffusers' layout: the rows of
B (q, k, v) and the columns of A (out) are in the original head order, with zeros for the heads of the other kind, so
`WanPipeline.load_lora_weights(folder, weight_name="spatial.safetensors")` needs no code of ours. `comfyui.safetensors`
joins both by rank concatenation. `region.safetensors` says where the adapter acts if it is rendered with others; it is
there where an object's motion was wanted alone. Of a backbone with two transformers each has files of its own, such as
`spatial_high_noise.safetensors` and `comfyui_low_noise.safetensors`, and the low-noise one may have none.
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
from safetensors.torch import load, save_file
from torch import nn

from effivmt.errors import AdapterError
from effivmt.method.adapter_card import model_card
from effivmt.method.adapter_manifest import REGION, AdapterFacts, BackboneFacts, expert_names, read_facts
from effivmt.method.branch_lora import PROJECTIONS
from effivmt.method.dual_path import channels_of
from effivmt.method.experts import HIGH, LOW, named
from effivmt.method.heads import BRANCHES, HeadMap, load_head_map, save_head_map
from effivmt.method.side_path import SidedLinear
from effivmt.store.digests import sha256_bytes, sha256_file

_COMFYUI_NAMES = dict(zip(PROJECTIONS, ("q", "k", "v", "o"), strict=True))


@dataclass(frozen=True)
class LoraPair:
    """What an adapter has of one transformer: stock-layout LoRA weights of each branch, and the head map."""

    spatial: dict[str, torch.Tensor]
    temporal: dict[str, torch.Tensor]
    heads: HeadMap


@dataclass(frozen=True)
class Adapter(LoraPair):
    """An adapter in memory, and what it was made from; of a backbone with two transformers, its own LoRAs are those of
    the high-noise one, and `low_noise` those of the other, None where that was not tuned.

    region: float32 (1, 1, F, h, w) in [0, 1], where in the latents of its clip the adapter acts if it is rendered with
    others; None: everywhere.
    """

    facts: AdapterFacts
    low_noise: LoraPair | None = None
    region: torch.Tensor | None = None


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
    low_noise: LoraPair | None = None,
    region: torch.Tensor | None = None,
) -> None:
    """Writes an adapter folder from stock-layout weights; `facts` go into adapter.json and the model card.

    Where the facts say that the backbone has two transformers, the weights are of the high-noise one and, in
    `low_noise`, of the other. `region` as of `Adapter`.
    """
    has_two = "boundary_ratio" in facts.get("pipeline", {})
    assert has_two or low_noise is None
    pairs = {HIGH if has_two else "": LoraPair(dict(spatial), dict(temporal), heads)}
    if low_noise is not None:
        pairs[LOW] = low_noise
    folder.mkdir(parents=True, exist_ok=True)
    for name, pair in pairs.items():
        weights = {
            "spatial": pair.spatial,
            "temporal": pair.temporal,
            "comfyui": to_comfyui(pair.spatial, pair.temporal),
        }
        for word, tensors in weights.items():
            save_file(tensors, folder / f"{named(word, name)}.safetensors", metadata={"format": "pt"})
        save_head_map(folder / f"{named('heads', name)}.parquet", pair.heads)
    if region is not None:
        save_file({"region": region.contiguous()}, folder / REGION)
    (folder / "README.md").write_text(model_card(facts, _tuned(pairs)), encoding="utf-8")
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.name != "adapter.json"}
    document = {"format": "effivmt-adapter", "version": 2 if has_two else 1, **facts, "files": files}
    (folder / "adapter.json").write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_adapter(folder: Path | str) -> Adapter:
    """Reads an adapter folder; AdapterError for a wrong digest, or a branch that changes nothing or is not finite.

    One of the branches may have no weights at all, where its stage was left out.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    own, *others = [_load_pair(folder, name, facts["files"]) for name in expert_names(facts)]
    region = _load_region(folder, facts["files"][REGION]) if REGION in facts["files"] else None
    return Adapter(own.spatial, own.temporal, own.heads, facts, others[0] if others else None, region)


def _load_region(folder: Path, digest: str) -> torch.Tensor:
    """The region of an adapter folder, whose header was checked; AdapterError where it has changed, or is none."""
    region = _read_tensors(folder / REGION, digest, f"adapter {folder}: its region")["region"]
    if not ((region >= 0) & (region <= 1)).all():  # false of what is not a number
        raise AdapterError(f"adapter {folder}: its region has values outside of 0 to 1; make or pull it again")
    return region


def _read_tensors(path: Path, digest: str, whose: str) -> dict[str, torch.Tensor]:
    """The tensors of a file of an adapter, in memory; AdapterError where it cannot be read or has another digest."""
    try:
        content = path.read_bytes()  # not mapped: it would change with the file
        tensors = load(content)
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"adapter file {path} cannot be read: {error}") from error
    if sha256_bytes(content) != digest:
        raise AdapterError(f"{whose} has changed while it was read; try again")
    return tensors


def _load_pair(folder: Path, expert: str, files: Mapping[str, str]) -> LoraPair:
    """What an adapter folder has of one expert, by the digests of its files; errors as of `load_adapter`."""
    heads, weights = load_head_map(folder / f"{named('heads', expert)}.parquet"), {}
    for branch in BRANCHES:
        file, whose = f"{named(branch, expert)}.safetensors", f"{branch} branch{f' ({expert})' if expert else ''}"
        weights[branch] = _read_tensors(folder / file, files[file], f"adapter {folder}: its {whose}")
        if not all(tensor.isfinite().all() for tensor in weights[branch].values()):
            raise AdapterError(f"adapter {folder}: a weight of its {whose} is not finite; tune it again")
        if weights[branch] and not any(down.any() and up.any() for _, down, up in _pairs(weights[branch])):
            raise AdapterError(f"adapter {folder}: its {whose} is zero and changes nothing; tune it again")
    if not any(weights.values()):
        whose = f" of the {expert} transformer" if expert else " at all"
        raise AdapterError(f"adapter {folder}: it has no weights{whose} and changes nothing; tune it again")
    return LoraPair(weights["spatial"], weights["temporal"], heads)


def check_fits(
    adapter: Adapter,
    transformer: WanTransformer3DModel,
    backbone: BackboneFacts | None = None,
    *,
    second: WanTransformer3DModel | None = None,
) -> None:
    """Raises AdapterError, naming both sides, unless the adapter was made for this backbone.

    `backbone` says whose transformers these are; `second` is the low-noise one where there are two. Their weights must
    be those that the adapter was tuned on; an adapter up to version 0.1 knows the digest of the whole backbone alone.
    """
    if (made_for := adapter.facts.get("backbone")) is not None and backbone is not None:
        _check_digests(made_for, backbone, low_noise=adapter.low_noise is not None)
    _check_shapes(adapter, transformer)
    if adapter.low_noise is not None:
        if second is None:
            raise AdapterError(
                "the adapter has LoRAs of a second transformer but the backbone has one alone; use the backbone it was "
                "made for"
            )
        _check_shapes(adapter.low_noise, second)


def _check_digests(made_for: BackboneFacts, backbone: BackboneFacts, *, low_noise: bool) -> None:
    """Compares digests of weights; `low_noise`: also those of the second transformer."""
    compared = [("", made_for["digest"], backbone["digest"])]
    if "transformer" in made_for and "transformer" in backbone:
        compared = [("transformer ", made_for["transformer"], backbone["transformer"])]
    if low_noise:
        compared.append(
            ("second transformer's ", made_for.get("transformer_2", "none"), backbone.get("transformer_2", "none"))
        )
    for whose, asked, given in compared:
        if asked != given:
            raise AdapterError(
                f"the adapter was made for backbone {made_for['id']} ({whose}digest {asked[:12]}) but this backbone "
                f"has {whose}digest {given[:12]}; use the backbone it was made for"
            )


def _check_shapes(adapter: LoraPair, transformer: WanTransformer3DModel) -> None:
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
    the LoRAs stay as they are, as merging would round small updates away: in float32 on a processor, in the precision
    of the transformer on a GPU. On leaving, the original bytes are back.
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
                precision = torch.float32 if device.type == "cpu" else transformer.dtype
                transformer.set_submodule(module, _beside(linear, sides, precision))
        yield transformer
    finally:
        for linear, original in merged:
            linear.weight.detach().copy_(original)
        for module, linear in replaced.items():
            transformer.set_submodule(module, linear)


def _beside(
    linear: nn.Linear, parts: Sequence[tuple[torch.Tensor, torch.Tensor, float]], precision: torch.dtype
) -> SidedLinear:
    """A Linear that computes W + the sum of strength * B A, for parts (A, B, strength) in float32; W stays as it is."""
    down = torch.cat([down for down, _, _ in parts])
    up = torch.cat([strength * up for _, up, strength in parts], dim=1)
    return SidedLinear(linear, down.to(precision), up.to(precision))


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


def _tuned(pairs: Mapping[str, LoraPair]) -> list[tuple[str, str]]:
    """(branch, expert) of each LoRA that has weights."""
    return [(branch, name) for name, pair in pairs.items() for branch in BRANCHES if getattr(pair, branch)]
