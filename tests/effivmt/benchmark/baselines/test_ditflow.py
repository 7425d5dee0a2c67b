"""DiTFlow: the flow of tokens whose motion is known, the mean over heads, and the loss at the reference itself."""

import pytest
import torch

from effivmt.benchmark.baselines.ditflow import (
    DiTFlowParams,
    best_displacements,
    flow_loss,
    frame_logits,
    latent_flow,
    mean_displacements,
    reference_flow,
    token_positions,
)
from effivmt.method.guided import optimise

GRID = (3, 4, 5)


@pytest.fixture
def moving() -> torch.Tensor:
    """Tokens (60, 2, 10) of two heads, each like its own place alone, rolled by (1, 2) from frame to frame."""
    own = torch.eye(20).view(4, 5, 20)
    frames = [own.roll((shift, 2 * shift), dims=(0, 1)) for shift in range(3)]
    return torch.stack(frames).view(60, 2, 10)


def test_known_motion_is_found(moving):
    flow = best_displacements(moving, moving, GRID).view(3, 4, 5, 3, 2)
    assert flow[0, 1, 2, 0].tolist() == [0, 0]
    assert flow[0, 1, 2, 1].tolist() == [1, 2]
    assert flow[1, 2, 4, 0].tolist() == [-1, -2]
    assert flow[2, 2, 4, 0].tolist() == [-2, -4]
    assert flow[0, 3, 0, 1].tolist() == [-3, 2]  # over the lower edge, in at the upper one


def test_a_sharp_mean_is_the_best_and_the_loss_at_the_reference_is_zero(moving):
    best = best_displacements(moving, moving, GRID)
    assert flow_loss(mean_displacements(moving, moving, GRID, 1000.0), best) < 1e-6
    soft = flow_loss(mean_displacements(moving, moving, GRID, 2.0), best)
    assert flow_loss(mean_displacements(moving, moving, GRID, 20.0), best) < soft
    flat = mean_displacements(moving, moving, GRID, 1e-6)
    assert torch.allclose(flat[1, :, 2], torch.tensor([1.5, 2.0]) - token_positions(GRID, flat.device), atol=1e-4)


def test_logits_are_the_mean_over_heads():
    q, k = torch.randn(2, 12, 3, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([q[:, head] @ k[:, head].T for head in range(3)]).mean(0) / 8**0.5
    assert torch.allclose(frame_logits(q, k, 2), expected.view(2, 6, 2, 6), atol=1e-6)


def test_every_pair_and_both_axes_count(moving):
    best = best_displacements(moving, moving, GRID)
    for place in [(0, 0, 1, 0), (2, 7, 0, 1), (1, 19, 1, 0)]:
        changed = best.clone()
        changed[place] += 3
        assert flow_loss(changed, best).item() == pytest.approx(9 / best.numel())


def test_optimising_the_latents_brings_the_flow_to_the_reference(backbone, reference, prompts):
    """From noise, with many steps, most of what a soft flow of this backbone can reach is reached."""
    params, timestep = DiTFlowParams(), torch.tensor([900.0])
    target = reference_flow(backbone.transformer, reference, prompts[1], params)
    start = torch.randn(reference.shape, generator=torch.Generator().manual_seed(1))

    def loss(latents: torch.Tensor) -> torch.Tensor:
        return flow_loss(latent_flow(backbone.transformer, latents, timestep, prompts[0], params=params), target)

    assert target.any() and target.shape == (3, 6, 3, 2)
    assert loss(optimise(start, loss, 60, 0.05)) < 0.8 * loss(start)
