"""A transformer to tune, the latents of a clip, and each of the two stages."""

import copy

import pytest
import torch
from diffusers import WanTransformer3DModel
from staged import Stage


@pytest.fixture
def transformer(backbone) -> WanTransformer3DModel:
    return copy.deepcopy(backbone.transformer)


@pytest.fixture(scope="module")
def clip() -> dict[str, torch.Tensor]:
    """Latents of a clip: a pattern that moves over a still ground; its frames alone; a caption."""
    random = torch.Generator().manual_seed(0)
    ground, pattern = torch.randn(2, 4, 1, 4, 4, generator=random)
    dense = torch.cat([ground + 2 * pattern.roll(shift, dims=3) for shift in range(5)], dim=1)[None]
    return {
        "dense": dense,
        "single": dense[0].transpose(0, 1)[:, :, None].contiguous(),
        "caption": torch.randn(1, 16, 16, generator=random),
    }


@pytest.fixture(params=["spatial", "temporal"])
def stage(request, clip, tmp_path) -> Stage:
    return Stage(request.param, clip, tmp_path / "state.safetensors")
