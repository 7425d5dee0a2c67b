"""The split transformer computes what the stock one does, and leaves it as it was."""

import copy

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttnProcessor

from effivmt.method.dual_path import SplitInput, SplitOutput, branch_parameters, channels_of, dual_path
from effivmt.method.heads import HeadMap

MAPS = {
    "random": np.random.default_rng(0).random((2, 4)) < 0.5,
    "interleaved": np.array([[1, 0, 1, 0], [0, 0, 0, 1]], dtype=bool),
    "all spatial": np.zeros((2, 4), dtype=bool),
    "all temporal": np.ones((2, 4), dtype=bool),
    "one layer all spatial": np.array([[0, 0, 0, 0], [1, 0, 1, 1]], dtype=bool),
    "one layer all temporal": np.array([[0, 1, 1, 0], [1, 1, 1, 1]], dtype=bool),
}


def head_map(is_temporal: np.ndarray) -> HeadMap:
    return HeadMap(np.zeros(is_temporal.shape), np.zeros(is_temporal.shape), is_temporal)


@pytest.fixture
def transformer(backbone) -> WanTransformer3DModel:
    """A copy whose biases and norms are random and large, so that a wrong permutation shows."""
    model = copy.deepcopy(backbone.transformer)
    random = torch.Generator().manual_seed(0)
    for block in model.blocks:
        for projection in (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v, block.attn1.to_out[0]):
            projection.bias.copy_(torch.randn(projection.bias.shape, generator=random))
    return model


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 3, 4, 6, generator=random)
    return latents, torch.tensor([800.0, 100.0]), torch.randn(2, 16, 16, generator=random)


class TestDualPath:
    @pytest.mark.parametrize("name", MAPS)
    def test_output_equals_stock(self, transformer, inputs, name):
        stock = transformer(*inputs).sample
        with dual_path(transformer, head_map(MAPS[name])) as split:
            assert split is transformer
            error = (split(*inputs).sample - stock).abs().max().item()
        print(f"{name}: the split output differs by at most {error:.1e} of {stock.abs().max():.2f}")
        assert error < 2e-6

    def test_a_changed_half_changes_the_output(self, transformer, inputs):
        """Else the comparison above would prove nothing: every half takes part."""
        stock = transformer(*inputs).sample
        with dual_path(transformer, head_map(MAPS["interleaved"])):
            names = [name for branch in ("spatial", "temporal") for name in branch_parameters(transformer, branch)]
            for name in names:
                if name.endswith("to_k.spatial.bias") or name.endswith("to_k.temporal.bias"):
                    continue  # shifts every logit of a query alike, but for RoPE
                parameter = transformer.get_parameter(name)
                before = parameter.clone()
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
                assert (transformer(*inputs).sample - stock).abs().max() > 1e-4, name
                parameter.copy_(before)
        assert torch.equal(transformer(*inputs).sample, stock)

    @pytest.mark.parametrize("name", MAPS)
    def test_leaves_the_transformer_bit_identical(self, transformer, name):
        modules = [(path, id(module)) for path, module in transformer.named_modules()]
        before = {key: tensor.clone() for key, tensor in transformer.state_dict().items()}
        with dual_path(transformer, head_map(MAPS[name])):
            for block in transformer.blocks:
                for parameter in block.attn1.parameters():
                    parameter.zero_()
        after = transformer.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[key], before[key]) for key in before)
        assert [(path, id(module)) for path, module in transformer.named_modules()] == modules

    def test_is_undone_when_the_work_inside_fails(self, transformer):
        modules = [id(module) for module in transformer.modules()]
        with pytest.raises(KeyboardInterrupt), dual_path(transformer, head_map(MAPS["random"])):
            raise KeyboardInterrupt
        assert [id(module) for module in transformer.modules()] == modules

    def test_is_undone_when_splitting_fails(self, transformer, monkeypatch):
        modules = [id(module) for module in transformer.modules()]
        last = transformer.blocks[1].attn1.norm_k
        monkeypatch.setattr(last, "weight", None)
        with pytest.raises(AttributeError), dual_path(transformer, head_map(MAPS["random"])):
            pass
        monkeypatch.undo()
        assert [id(module) for module in transformer.modules()] == modules

    def test_attention_code_stays_that_of_diffusers(self, transformer):
        with dual_path(transformer, head_map(MAPS["interleaved"])):
            for block in transformer.blocks:
                assert type(block.attn1.processor) is WanAttnProcessor
                assert type(block.attn1.to_q) is SplitOutput and type(block.attn1.to_out[0]) is SplitInput
                assert type(block.attn2.to_q) is torch.nn.Linear

    @pytest.mark.parametrize("shape", [(2, 5), (3, 4), (4, 2)])
    def test_another_shape_is_refused(self, transformer, shape):
        message = rf"{shape[0]} layers x {shape[1]} heads but the transformer has 2 x 4"
        with pytest.raises(ValueError, match=message), dual_path(transformer, head_map(np.zeros(shape, dtype=bool))):
            pass
        assert type(transformer.blocks[0].attn1.to_q) is torch.nn.Linear


class TestBranchParameters:
    @pytest.mark.parametrize("name", MAPS)
    def test_parts_the_projections_without_loss(self, transformer, name):
        linears = [
            projection
            for block in transformer.blocks
            for projection in (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v, block.attn1.to_out[0])
        ]
        stock_numbers = sum(p.numel() for linear in linears for p in linear.parameters())
        with dual_path(transformer, head_map(MAPS[name])):
            spatial, temporal = (branch_parameters(transformer, branch) for branch in ("spatial", "temporal"))
        assert not set(spatial) & set(temporal)
        assert sum(p.numel() for p in (*spatial.values(), *temporal.values())) == stock_numbers
        share = MAPS[name].mean()
        weights = [sum(p.numel() for n, p in part.items() if n.endswith("weight")) for part in (spatial, temporal)]
        assert weights == [round((1 - share) * sum(weights)), round(share * sum(weights))]

    def test_hold_the_rows_and_columns_of_their_heads(self, transformer):
        to_q, to_out = transformer.blocks[0].attn1.to_q, transformer.blocks[0].attn1.to_out[0]
        with dual_path(transformer, head_map(MAPS["interleaved"])):
            temporal = branch_parameters(transformer, "temporal")
        rows = [*range(12), *range(24, 36)]
        assert torch.equal(temporal["blocks.0.attn1.to_q.temporal.weight"], to_q.weight[rows])
        assert torch.equal(temporal["blocks.0.attn1.to_q.temporal.bias"], to_q.bias[rows])
        assert torch.equal(temporal["blocks.0.attn1.to_out.0.temporal.weight"], to_out.weight[:, rows])

    def test_channels_of_each_branch_in_stock_order(self):
        channels = channels_of(np.array([True, False, True]), 2)
        assert channels["spatial"].tolist() == [2, 3] and channels["temporal"].tolist() == [0, 1, 4, 5]
        assert channels_of(np.zeros(2, dtype=bool), 3)["temporal"].shape == (0,)
