"""SMM: the loss is zero at the reference, blind to looks that all frames share, and follows its formula."""

import pytest
import torch
from torch.nn import functional as F

from effivmt.benchmark.baselines.features import block_output
from effivmt.benchmark.baselines.smm import smm_loss, spatial_means


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(4, 16, generator=torch.Generator().manual_seed(0))


def test_zero_at_the_reference_whatever_the_frames_share(features):
    assert smm_loss(features, features).abs() < 1e-6
    assert smm_loss(3 * features + torch.arange(16), features).abs() < 1e-5
    assert smm_loss(-features, features).item() == pytest.approx(2)


def test_is_the_mean_over_all_pairs(features):
    other = features.flip(0) + features.roll(1, 1)
    cosines = [
        F.cosine_similarity(features[i] - features[j], other[i] - other[j], dim=0)
        for i in range(4)
        for j in range(4)
        if i != j
    ]
    assert smm_loss(features, other).item() == pytest.approx(1 - torch.stack(cosines).mean().item(), rel=1e-5)


def test_means_are_over_the_tokens_of_each_frame(backbone, reference, prompts):
    timestep = torch.tensor([500.0])
    with torch.no_grad():
        tokens = block_output(backbone.transformer, 1, reference, timestep, text=prompts[0])
        means = spatial_means(backbone.transformer, 1, reference, timestep, text=prompts[0])
    assert means.shape == (3, 48) and torch.allclose(means[1], tokens[6:12].mean(0), atol=1e-6)


def test_the_gradient_reaches_every_latent_frame(backbone, reference, prompts, features):
    latents = reference.clone().requires_grad_()
    target = features[:3].repeat(1, 3)
    smm_loss(spatial_means(backbone.transformer, 1, latents, torch.tensor([500.0]), text=prompts[0]), target).backward()
    assert latents.grad.isfinite().all() and latents.grad.abs().amax(dim=(0, 1, 3, 4)).gt(0).all()
