"""Products in bfloat16: near float32's, with float32 gradients, and gone after the context."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from effivmt.pretrain.precision import MIN_WIDTH, Bfloat16Linear, bfloat16_products


@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_near_float32(bias):
    torch.manual_seed(0)
    layer = nn.Linear(128, 96, bias=bias)
    x, target = torch.randn(4, 7, 128), torch.randn(4, 7, 96)
    found = []
    for precise in (True, False):
        given = x.clone().requires_grad_()
        layer.zero_grad()
        if precise:
            out = layer(given)
        else:
            with bfloat16_products(layer):
                assert type(layer) is Bfloat16Linear
                out = layer(given)
        F.mse_loss(out, target).backward()
        assert out.dtype == given.grad.dtype == layer.weight.grad.dtype == torch.float32
        found.append([out.detach(), given.grad, *(parameter.grad.clone() for parameter in layer.parameters())])
    for exact, rounded in zip(*found, strict=True):
        error = ((exact - rounded).norm() / exact.norm()).item()
        assert error < 0.01, error
    assert not torch.equal(found[0][0], found[1][0])  # it did multiply in bfloat16


def test_narrow_layers_stay_and_all_are_restored():
    model = nn.Sequential(nn.Linear(128, 128), nn.Linear(128, MIN_WIDTH - 1))
    with pytest.raises(RuntimeError, match="stop"), bfloat16_products(model):
        assert [type(layer) for layer in model] == [Bfloat16Linear, nn.Linear]
        raise RuntimeError("stop")
    assert [type(layer) for layer in model] == [nn.Linear, nn.Linear]
