"""The method at the sizes of Wan 2.1: 1.3B through every stage with random weights, 14B by names and shapes."""

import resource
import time

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from effivmt.config import SamplingParams, SpatialParams, TemporalParams
from effivmt.method.adapter import Adapter, check_fits, fused, load_adapter, save_adapter, to_comfyui, to_stock_layout
from effivmt.method.dual_path import add_lora, dual_path, lora_parameters
from effivmt.method.head_scores import attention_scores
from effivmt.method.heads import HeadMap, label_heads
from effivmt.method.tuning import tune_spatial, tune_temporal

WAN_1_3B = {"num_layers": 30, "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960}
WAN_14B = {"num_layers": 40, "num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824}
SHARED = {
    "patch_size": (1, 2, 2),
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 1024,
}
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def on_meta(size: dict[str, int]) -> WanTransformer3DModel:
    """The true configuration, without memory for the weights."""
    with torch.device("meta"):
        return WanTransformer3DModel(**SHARED, **size).eval().requires_grad_(False)


def with_random_weights(size: dict[str, int]) -> WanTransformer3DModel:
    """In bfloat16, but for the modules that `from_pretrained` keeps in float32; each weight a piece of one noise."""
    transformer = on_meta(size)
    noise = torch.randn(2**22, generator=torch.Generator().manual_seed(0)) * 0.02
    for index, (name, meta) in enumerate(list(transformer.named_parameters())):
        kept = any(part in name.split(".") for part in transformer._keep_in_fp32_modules)
        weight = torch.empty(meta.shape, dtype=torch.float32 if kept else torch.bfloat16)
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm2.weight")):
            weight.fill_(1.0)
        else:
            piece = noise.roll(-9973 * index).to(weight.dtype)
            for start in range(0, weight.numel(), len(piece)):
                part = weight.view(-1)[start : start + len(piece)]
                part.copy_(piece[: len(part)])
        path, _, leaf = name.rpartition(".")
        setattr(transformer.get_submodule(path), leaf, torch.nn.Parameter(weight, requires_grad=False))
    transformer.rope = WanRotaryPosEmbed(size["attention_head_dim"], SHARED["patch_size"], SHARED["rope_max_seq_len"])
    return transformer


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_wan_1_3b_goes_through_every_stage(tmp_path):
    """Classification, a step of both stages at rank 128, export, reload and merged inference within 24 GiB."""
    started = time.perf_counter()
    transformer = with_random_weights(WAN_1_3B)
    assert transformer.dtype == torch.bfloat16
    print(f"1.3B: {sum(p.numel() for p in transformer.parameters()) / 1e9:.2f}e9 weights")
    random = torch.Generator().manual_seed(0)
    dense = torch.randn(1, 16, 5, 8, 8, generator=random)
    caption = torch.randn(1, 512, 4096, generator=random) * 0.1
    inputs = (dense.bfloat16(), torch.tensor([500.0]), caption.bfloat16())
    probe = transformer.blocks[7].attn1.to_out[0].weight.clone()
    with torch.no_grad():
        stock = transformer(*inputs).sample

    spatial, temporal = attention_scores(transformer, *inputs, band=0.08, query_rows=256)
    heads = label_heads(spatial, temporal, float(np.median(spatial / temporal)))
    assert heads.is_temporal.shape == (30, 12) and 0.4 < heads.is_temporal.mean() < 0.6

    settings = {"rank": 128, "steps": 1, "batch": 1, "gradient_checkpointing": True}
    common = {"seed": 0, "clip": "clip"}
    tuned = tune_spatial(
        transformer, heads, dense[0].transpose(0, 1)[:, :, None], caption, params=SpatialParams(**settings),
        checkpoint=tmp_path / "spatial", **common,
    )  # fmt: skip
    losses, looks = [*tuned.losses["denoising"]], to_stock_layout(tuned.weights, heads)
    with fused(transformer, {"spatial": (looks, 1.0)}):
        tuned = tune_temporal(
            transformer, heads, dense, caption, params=TemporalParams(**settings),
            sampling=SamplingParams(mode="latent", frames=9), num_frames=17, checkpoint=tmp_path / "temporal", **common,
        )  # fmt: skip
    losses += [*tuned.losses["denoising"], *tuned.losses["motion"]]
    assert len(losses) == 3 and np.isfinite(losses).all()

    save_adapter(tmp_path / "adapter", looks, to_stock_layout(tuned.weights, heads), heads, facts={})
    adapter = load_adapter(tmp_path / "adapter")
    check_fits(adapter, transformer)
    assert adapter.spatial["transformer.blocks.0.attn1.to_q.lora_A.weight"].shape == (128, 1536)
    outputs = {}
    with torch.no_grad():
        for name, strengths in {"looks": (1.0, 0.0), "motion": (0.0, 1.0), "both": (1.0, 1.0)}.items():
            weights = {"spatial": (adapter.spatial, strengths[0]), "temporal": (adapter.temporal, strengths[1])}
            with fused(transformer, weights):
                outputs[name] = transformer(*inputs).sample
        after = transformer(*inputs).sample
    changes = {name: (output - stock).abs().max().item() for name, output in outputs.items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"losses {losses}, changes of the output {changes} of {stock.abs().max():.2f}")
    print(f"{time.perf_counter() - started:.0f} s, peak RSS {peak:.1f} GiB")
    assert all(output.isfinite().all() for output in outputs.values()) and min(changes.values()) > 0
    assert torch.equal(after, stock) and torch.equal(transformer.blocks[7].attn1.to_out[0].weight, probe)
    assert peak < 24


@pytest.fixture(scope="module")
def heads() -> HeadMap:
    """Of the size of 14B: random, with a layer of each kind alone."""
    is_temporal = np.random.default_rng(0).random((40, 40)) < 0.58
    is_temporal[3], is_temporal[29] = True, False
    return HeadMap(np.zeros((40, 40)), np.zeros((40, 40)), is_temporal)


@pytest.fixture(scope="module")
def transformer() -> WanTransformer3DModel:
    return on_meta(WAN_14B)


class TestWan14B:
    def test_the_dual_path_adds_the_lora_alone(self, transformer, heads):
        """No second copy of a weight: 14B has 7.8 GiB of self-attention in bfloat16."""
        stock = [(name, id(parameter)) for name, parameter in transformer.named_parameters()]
        assert 14e9 < sum(parameter.numel() for parameter in transformer.parameters()) < 14.5e9
        with dual_path(transformer, heads):
            add_lora(transformer, "temporal", 128, torch.Generator().manual_seed(0))
            assert [(name, id(parameter)) for name, parameter in transformer.named_parameters()] == stock
            own = sum(parameter.numel() for parameter in lora_parameters(transformer))
        channels = 128 * heads.is_temporal.sum(1)
        assert own == sum(4 * 128 * (5120 + int(count)) for count in channels if count)

    @pytest.mark.parametrize("branch", ["spatial", "temporal"])
    def test_stock_layout_of_a_lora(self, transformer, heads, branch):
        with dual_path(transformer, heads):
            split = add_lora(transformer, branch, 4, torch.Generator().manual_seed(0))
        stock = to_stock_layout({name: torch.ones(weight.shape) for name, weight in split.items()}, heads)
        layers = [layer for layer in range(40) if (heads.is_temporal[layer] == (branch == "temporal")).any()]
        assert len(layers) == 39
        assert {name: tuple(weight.shape) for name, weight in stock.items()} == {
            f"transformer.blocks.{layer}.attn1.{projection}.{side}.weight": shape
            for layer in layers
            for projection in PROJECTIONS
            for side, shape in (("lora_A", (4, 5120)), ("lora_B", (5120, 4)))
        }
        share = np.mean([(heads.is_temporal[layer] == (branch == "temporal")).mean() for layer in layers])
        filled = np.mean([w.mean().item() for name, w in stock.items() if name.endswith("to_v.lora_B.weight")])
        assert filled == pytest.approx(share)
        check_fits(Adapter(stock, {}, heads, {}), transformer)
        joined = to_comfyui(stock, stock)
        assert joined["diffusion_model.blocks.0.self_attn.o.lora_A.weight"].shape == (8, 5120)
        assert len(joined) == len(stock)
