"""The dual path computes what the stock transformer does, copies none of its weights, and leaves it as it was."""

import copy

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel

from effivmt.method.adapter import to_stock_layout
from effivmt.method.branch_lora import PROJECTIONS, HeadChannels
from effivmt.method.dual_path import add_lora, channels_of, dual_path, hold_text, lora_parameters
from effivmt.method.heads import BRANCHES, HeadMap

MAPS = {
    "random": np.random.default_rng(0).random((2, 4)) < 0.5,
    "interleaved": np.array([[1, 0, 1, 0], [0, 0, 0, 1]], dtype=bool),
    "all spatial": np.zeros((2, 4), dtype=bool),
    "all temporal": np.ones((2, 4), dtype=bool),
    "one layer all spatial": np.array([[0, 0, 0, 0], [1, 0, 1, 1]], dtype=bool),
    "one layer all temporal": np.array([[0, 1, 1, 0], [1, 1, 1, 1]], dtype=bool),
}
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def head_map(is_temporal: np.ndarray, *, decoupled: bool = True) -> HeadMap:
    return HeadMap(np.zeros(is_temporal.shape), np.zeros(is_temporal.shape), is_temporal, decoupled)


class LoraLinear(torch.nn.Module):
    """y = W x + b + B A x by autograd alone: the reference."""

    def __init__(self, linear: torch.nn.Linear, down: torch.Tensor, up: torch.Tensor) -> None:
        super().__init__()
        self.linear, self.down, self.up = linear, torch.nn.Parameter(down), torch.nn.Parameter(up)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + x @ self.down.T @ self.up.T


@pytest.fixture
def transformer(backbone) -> WanTransformer3DModel:
    """A copy whose biases and norms are random and large, so that a wrong order of heads shows."""
    model = copy.deepcopy(backbone.transformer)
    random = torch.Generator().manual_seed(0)
    for block in model.blocks:
        for attention in (block.attn1, block.attn2):
            for module in (*(attention.get_submodule(name) for name in PROJECTIONS),):
                module.bias.copy_(torch.randn(module.bias.shape, generator=random))
            for norm in (attention.norm_q, attention.norm_k):
                norm.weight.copy_(torch.rand(norm.weight.shape, generator=random) + 0.5)
    return model


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 3, 4, 6, generator=random)
    return latents, torch.tensor([800.0, 100.0]), torch.randn(1, 16, 16, generator=random)


def expanded(inputs: Inputs) -> Inputs:
    return inputs[0], inputs[1], inputs[2].expand(2, -1, -1)


def random_lora(transformer: WanTransformer3DModel, branch: str | None) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    weights = add_lora(transformer, branch, 3, random)
    for weight in weights.values():
        weight.copy_(torch.randn(weight.shape, generator=random) * 0.2)
    return {name: weight.clone() for name, weight in weights.items()}


def in_float64(
    transformer: WanTransformer3DModel, inputs: Inputs, lora: dict[str, torch.Tensor], monkeypatch
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Output of the stock transformer with a stock-layout LoRA, and the gradients of the mean of its square.

    diffusers calls `float()` inside the block, which is `double()` here.
    """
    reference = copy.deepcopy(transformer).double()
    for name in [name for name in lora if name.endswith("lora_A.weight")]:
        path = name.removeprefix("transformer.").removesuffix(".lora_A.weight")
        pair = lora[name].double(), lora[name.replace("lora_A", "lora_B")].double()
        reference.set_submodule(path, LoraLinear(reference.get_submodule(path), *pair))
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        output = reference(*(tensor.double() for tensor in expanded(inputs))).sample
    output.square().mean().backward()
    gradients = {}
    for path, module in reference.named_modules():
        if isinstance(module, LoraLinear):
            gradients[f"transformer.{path}.lora_A.weight"] = module.down.grad
            gradients[f"transformer.{path}.lora_B.weight"] = module.up.grad
    return output.detach(), gradients


class TestOutput:
    @pytest.mark.parametrize("name", MAPS)
    @torch.no_grad()
    def test_equals_stock(self, transformer, inputs, name):
        stock = transformer(*expanded(inputs)).sample
        with dual_path(transformer, head_map(MAPS[name])) as path:
            assert path is transformer
            error = (path(*expanded(inputs)).sample - stock).abs().max().item()
            hold_text(transformer, inputs[2])
            held = (path(inputs[0], inputs[1], inputs[2][:, :0]).sample - stock).abs().max().item()
        print(
            f"{name}: the output differs by at most {error:.1e}, {held:.1e} with text held, of {stock.abs().max():.2f}"
        )
        assert max(error, held) < 3e-6

    @torch.no_grad()
    def test_equals_stock_where_each_token_has_its_timestep(self, transformer, inputs):
        """As Wan 2.2 TI2V expands them."""
        timesteps = torch.linspace(0, 900, 2 * 3 * 2 * 3).view(2, -1)
        stock = transformer(inputs[0], timesteps, expanded(inputs)[2]).sample
        with dual_path(transformer, head_map(MAPS["random"])):
            assert (transformer(inputs[0], timesteps, expanded(inputs)[2]).sample - stock).abs().max() < 3e-6

    @torch.no_grad()
    def test_in_bfloat16_is_as_near_to_float32_as_stock(self, transformer, inputs):
        exact = transformer(*expanded(inputs)).sample
        low, rough = copy.deepcopy(transformer).bfloat16(), [tensor.bfloat16() for tensor in expanded(inputs)]
        stock = (low(*rough).sample.float() - exact).norm()
        with dual_path(low, head_map(MAPS["random"])):
            ours = (low(*rough).sample.float() - exact).norm()
        print(f"bfloat16: error {ours / exact.norm():.4f}, stock {stock / exact.norm():.4f}")
        assert ours < 1.1 * stock


class TestGradients:
    @pytest.mark.parametrize("branch", [*BRANCHES, None])
    @pytest.mark.parametrize("name", ["interleaved", "one layer all spatial"])
    def test_equal_those_of_float64(self, transformer, inputs, name, branch, monkeypatch):
        heads = head_map(MAPS[name], decoupled=branch is not None)
        with dual_path(transformer, heads):
            with torch.no_grad():
                lora = to_stock_layout(random_lora(transformer, branch), heads)
            hold_text(transformer, inputs[2])
            output = transformer(inputs[0], inputs[1], inputs[2][:, :0]).sample
            output.square().mean().backward()
            names = iter(add_lora_names(transformer, branch))
            found = {next(names): gradient for leaf in lora_parameters(transformer) for gradient in parts_of(leaf)}
        exact, expected = in_float64(transformer, inputs, lora, monkeypatch)
        assert (output - exact).abs().max() < 3e-6
        found, errors = to_stock_layout(found, heads), []
        assert found.keys() == expected.keys()
        for key, gradient in found.items():
            own = gradient != 0  # the reference trains the channels of the other heads too
            assert own.any()
            errors.append(((gradient - expected[key])[own].norm() / expected[key][own].norm()).item())
        print(f"{name}, {branch}: gradients differ by at most {max(errors):.1e} of their norm")
        assert max(errors) < 1e-5

    def test_none_flows_below_the_first_layer_with_a_tuned_head(self, transformer, inputs):
        seen = []
        hooks = [
            module.register_forward_pre_hook(lambda _module, args: seen.append(args[0].requires_grad))
            for block in transformer.blocks
            for module in (block, block.norm2)
        ]
        with dual_path(transformer, head_map(MAPS["one layer all spatial"])):
            add_lora(transformer, "temporal", 3, torch.Generator().manual_seed(0))
            transformer(*expanded(inputs))
        for hook in hooks:
            hook.remove()
        assert seen == [False, False, False, True]  # layer 1 has the first temporal head


def parts_of(leaf: torch.Tensor) -> list[torch.Tensor]:
    """The gradient of a leaf, by projection."""
    assert leaf.grad is not None
    return list(leaf.grad) if leaf.ndim == 3 else [leaf.grad]


def add_lora_names(transformer: WanTransformer3DModel, branch: str | None) -> list[str]:
    """Names of the parts of `lora_parameters`, in order: A of q, k and v, their B, then A and B of the output."""
    sides = [(p, s) for s in ("lora_A", "lora_B") for p in PROJECTIONS[:3]]
    sides += [(PROJECTIONS[3], side) for side in ("lora_A", "lora_B")]
    suffix = "" if branch is None else f".{branch}"
    layers = [layer for layer, block in enumerate(transformer.blocks) if block.forward.lora is not None]
    return [f"blocks.{layer}.attn1.{p}{suffix}.{side}" for layer in layers for p, side in sides]


class TestWeights:
    @pytest.mark.parametrize("name", MAPS)
    def test_none_is_copied_moved_or_renamed(self, transformer, inputs, name):
        def places() -> list[tuple[str, int]]:
            return [(key, tensor.data_ptr()) for key, tensor in transformer.state_dict().items()]

        modules = [(path, id(module), set(vars(module))) for path, module in transformer.named_modules()]
        before, weights = places(), {key: tensor.clone() for key, tensor in transformer.state_dict().items()}
        with dual_path(transformer, head_map(MAPS[name])):
            add_lora(transformer, "temporal" if MAPS[name].any() else "spatial", 3, torch.Generator().manual_seed(0))
            transformer(*expanded(inputs)).sample.mean().backward()
            assert places() == before
        assert [(path, id(module), set(vars(module))) for path, module in transformer.named_modules()] == modules
        assert places() == before
        assert all(torch.equal(tensor, weights[key]) for key, tensor in transformer.state_dict().items())

    def test_the_stock_forward_is_back_when_the_work_inside_fails(self, transformer):
        before = [set(vars(module)) for module in transformer.modules()]
        with pytest.raises(KeyboardInterrupt), dual_path(transformer, head_map(MAPS["random"])):
            raise KeyboardInterrupt
        assert [set(vars(module)) for module in transformer.modules()] == before

    @pytest.mark.parametrize("shape", [(2, 5), (3, 4), (4, 2)])
    def test_another_shape_is_refused(self, transformer, shape):
        message = rf"{shape[0]} layers x {shape[1]} heads but the transformer has 2 x 4"
        with pytest.raises(ValueError, match=message), dual_path(transformer, head_map(np.zeros(shape, dtype=bool))):
            pass
        assert "forward" not in vars(transformer.blocks[0])


def test_channels_of_each_branch_in_stock_order():
    channels = channels_of(np.array([True, False, True]), 2)
    assert channels["spatial"].tolist() == [2, 3] and channels["temporal"].tolist() == [0, 1, 4, 5]
    assert channels_of(np.zeros(2, dtype=bool), 3)["temporal"].shape == (0,)


@pytest.mark.parametrize("own", [[0, 2], [3], None])
def test_a_weight_spread_over_all_channels_adds_the_same(own):
    """As a GPU adds a LoRA, in one product."""
    random = torch.Generator().manual_seed(0)
    heads = HeadChannels(None if own is None else torch.tensor(own), 4)
    y, inner = torch.randn(5, 12, generator=random), torch.randn(5, 2, generator=random)
    weight = torch.randn(2, 12 if own is None else 3 * len(own), generator=random)
    spread = torch.addmm(y, inner, heads.spread(weight))
    heads.add(y, inner, weight)
    assert torch.allclose(spread, y, atol=1e-6)
    assert torch.equal(heads.of(heads.spread(weight)), weight)
