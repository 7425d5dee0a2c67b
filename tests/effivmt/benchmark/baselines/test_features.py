"""The features are those of a whole forward pass, differentiable by the latents, and later blocks do not run."""

import pytest
import torch
from torch.nn import functional as F

from effivmt.benchmark.baselines.features import block_at, block_output, checkpointed, queries_and_keys, token_grid


@pytest.fixture
def inputs(reference, prompts) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return reference.clone(), torch.tensor([700.0]), prompts[0]


def watched(transformer, module, inputs) -> tuple:
    """Inputs and output of a module during a whole forward pass."""
    seen = []
    hook = module.register_forward_hook(lambda _module, args, output: seen.append((args, output)))
    latents, timestep, text = inputs
    with torch.no_grad():
        transformer(latents, timestep, text[None])
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("block", [0, 1])
def test_output_is_that_of_the_whole_pass(backbone, inputs, block):
    _, expected = watched(backbone.transformer, backbone.transformer.blocks[block], inputs)
    with torch.no_grad():
        assert torch.equal(block_output(backbone.transformer, block, *inputs[:2], text=inputs[2]), expected[0])


@pytest.mark.parametrize("block", [0, 1])
def test_queries_and_keys_give_the_output_of_the_attention(backbone, inputs, block):
    attention = backbone.transformer.blocks[block].attn1
    (hidden, *_), expected = watched(backbone.transformer, attention, inputs)
    with torch.no_grad():
        q, k = queries_and_keys(backbone.transformer, block, *inputs[:2], text=inputs[2])
        v = attention.to_v(hidden)[0].unflatten(1, (4, 12))
        mixed = F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in (q, k, v))).transpose(0, 1).flatten(1)
        assert torch.allclose(attention.to_out[0](mixed), expected[0], atol=1e-5)


@pytest.mark.parametrize("features", [block_output, queries_and_keys])
def test_later_blocks_rest_and_only_the_latents_get_a_gradient(backbone, inputs, features):
    transformer, ran = backbone.transformer, []
    hook = transformer.blocks[1].register_forward_pre_hook(lambda *_: ran.append(1))
    inputs[0].requires_grad_()
    found = features(transformer, 0, *inputs[:2], text=inputs[2])
    (found if features is block_output else found[0] + found[1]).square().sum().backward()
    hook.remove()
    assert not ran and inputs[0].grad.abs().amin(dim=(0, 1)).gt(0).all()
    assert all(parameter.grad is None for parameter in transformer.parameters())


@pytest.mark.parametrize("features", [block_output, queries_and_keys])
def test_checkpointing_gives_the_same_gradient(backbone, inputs, features):
    """The block that is read runs without it, the one before with it."""
    transformer, gradients = backbone.transformer, []
    for needed in (False, True):
        latents = inputs[0].clone().requires_grad_()
        with checkpointed(transformer, needed=needed):
            found = features(transformer, 1, latents, inputs[1], text=inputs[2])
            (found if features is block_output else found[0] + found[1]).square().sum().backward()
        gradients.append(latents.grad)
    assert torch.equal(*gradients) and gradients[0].any()
    assert not transformer.is_gradient_checkpointing


def test_nothing_is_left_on_the_transformer(backbone, inputs):
    transformer = backbone.transformer
    block_output(transformer, 0, *inputs[:2], text=inputs[2])
    queries_and_keys(transformer, 0, *inputs[:2], text=inputs[2])
    with pytest.raises(RuntimeError):
        queries_and_keys(transformer, 0, inputs[0][:, :3], inputs[1], text=inputs[2])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in transformer.modules())
    assert transformer(inputs[0], inputs[1], inputs[2][None]).sample.shape == inputs[0].shape


def test_depth_and_token_grid_come_from_the_config(backbone, reference):
    assert [block_at(backbone.transformer, depth) for depth in (0.0, 0.4, 0.5, 1.0)] == [0, 0, 1, 1]
    assert token_grid(backbone.transformer, reference) == (3, 2, 3)
