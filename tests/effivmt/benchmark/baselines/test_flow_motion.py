"""FlowMotion: the prediction, its gradient that passes the transformer by, and the two terms of the loss."""

import pytest
import torch

from effivmt.method.flow_motion import FlowMotionParams, clean_prediction, guidance_loss
from effivmt.method.guided import SamplingStep

PARAMS = FlowMotionParams()


@pytest.fixture
def step(reference) -> SamplingStep:
    return SamplingStep(0, 1, torch.tensor([900.0]), 0.9, torch.zeros_like(reference))


def test_prediction_removes_the_velocity(backbone, reference, prompts, step):
    velocity = backbone.transformer(reference, step.timestep, prompts[0][None]).sample
    found = clean_prediction(backbone.transformer, reference, step, prompts[0])
    assert torch.allclose(found, reference - 0.9 * velocity, atol=1e-6) and (found - reference).abs().max() > 1e-2


def test_no_gradient_passes_through_the_transformer(backbone, reference, prompts, step):
    latents = reference.clone().requires_grad_()
    weights = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    (clean_prediction(backbone.transformer, latents, step, prompts[0]) * weights).sum().backward()
    assert torch.equal(latents.grad, weights)


def test_zero_at_the_reference_and_nowhere_else(reference):
    assert guidance_loss(reference, reference, PARAMS) == 0
    assert guidance_loss(reference.flip(2), reference, PARAMS) > 0


def test_a_shift_of_all_frames_alike_costs_the_first_term_alone(reference):
    assert guidance_loss(reference + 0.5, reference, PARAMS).item() == pytest.approx(20 * 0.25, rel=1e-5)
    alone = PARAMS.model_copy(update={"latent_weight": 0.0})
    assert guidance_loss(reference + 0.5, reference, alone) < 1e-9


def test_differences_are_those_of_all_pairs_of_frames(reference):
    other = torch.randn(reference.shape, generator=torch.Generator().manual_seed(1))
    pairs = [(0, 1), (0, 2), (1, 2)]
    squares = [
        ((other[:, :, i] - other[:, :, j]) - (reference[:, :, i] - reference[:, :, j])).square().mean()
        for i, j in pairs
    ]
    expected = 20 * (other - reference).square().mean() + 5 * torch.stack(squares).mean()
    assert guidance_loss(other, reference, PARAMS).item() == pytest.approx(expected.item(), rel=1e-5)
