"""Fixtures of the peers' tests: sizes that the random backbone runs in moments, prompts, and reference latents."""

import pytest
import torch

from effivmt.config import IngestParams, RenderParams
from effivmt.method.backbone import Backbone
from effivmt.method.guided import GuidedRequest


@pytest.fixture(scope="session")
def size() -> IngestParams:
    """Three latent frames of 2 x 3 tokens on the random backbone."""
    return IngestParams(num_frames=9, height=32, width=48)


@pytest.fixture(scope="session")
def render_params() -> RenderParams:
    return RenderParams(steps=5, guidance_scale=4.0, flow_shift=5.0)


@pytest.fixture(scope="session")
def prompts(backbone) -> list[torch.Tensor]:
    """Embeddings of a prompt and of the empty one."""
    return backbone.encode_texts(["a green circle", ""])


@pytest.fixture(scope="session")
def reference() -> torch.Tensor:
    """Latents (1, 4, 3, 4, 6) of a pattern that moves to the right over a still ground."""
    random = torch.Generator().manual_seed(0)
    ground, pattern = torch.randn(2, 4, 1, 4, 6, generator=random)
    return torch.cat([ground + 2 * pattern.roll(2 * shift, dims=3) for shift in range(3)], dim=1)[None]


@pytest.fixture
def guided_request(
    backbone: Backbone,
    reference: torch.Tensor,
    prompts: list[torch.Tensor],
    render_params: RenderParams,
    size: IngestParams,
) -> GuidedRequest:
    """The prompt with the motion of the reference, of seed 0."""
    return GuidedRequest(
        backbone=backbone,
        reference=reference,
        prompt=prompts[0],
        negative=prompts[1],
        render=render_params,
        size=size,
        seed=0,
    )
