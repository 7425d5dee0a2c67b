"""DiTFlow (arXiv 2412.07776, CVPR 2025): guides the latents so that attention links frames as in the reference.

The attention motion flow of a pair of latent frames says where each token of the one is found in the other: for the
reference the token with most attention, for the video that is made the mean place under the attention, which is
differentiable. The loss is the mean squared difference of the two, over all ordered pairs, at one middle block.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from pydantic import Field

from effivmt.benchmark.baselines import guided
from effivmt.benchmark.baselines.features import block_at, queries_and_keys, token_grid
from effivmt.config import IngestParams, Positive, RenderParams, Section
from effivmt.method.backbone import Backbone

Rate = Annotated[float, Field(gt=0)]


class DiTFlowParams(Section):
    """DiTFlow's knobs; the defaults are the paper's, in shares of its 50 steps."""

    guided_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The share of the render steps that are guided, from the first on (10 of 50)."""
    depth: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Where in the transformer the block lies whose attention is read."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """tau, by which the logits are multiplied: the larger, the sharper."""
    adam_steps: Positive = 5
    """Steps of Adam on the latents before each guided step."""
    learning_rates: tuple[Rate, Rate] = (0.002, 0.001)
    """Of Adam at the first and the last guided step, linear between."""


def generate(
    backbone: Backbone,
    reference: torch.Tensor,
    prompt: torch.Tensor,
    negative: torch.Tensor,
    render: RenderParams,
    size: IngestParams,
    seed: int,
    params: DiTFlowParams,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) for a prompt, with the motion of normalised reference latents (1, C, F, h, w).

    prompt and negative embeddings (tokens, channels); the reference is read under the negative prompt, which is the
    empty one by default. Errors as of `guided.generate` and `guided.optimise`.
    """
    transformer = backbone.transformer
    target = reference_flow(transformer, reference, negative, params)

    def guide(latents: torch.Tensor, moment: guided.Moment) -> torch.Tensor:
        def loss(latents: torch.Tensor) -> torch.Tensor:
            return flow_loss(latent_flow(transformer, latents, moment.timestep, prompt, params), target)

        return guided.optimise(latents, loss, params.adam_steps, moment.between(*params.learning_rates))

    share = params.guided_share
    return guided.generate(backbone, reference, prompt, negative, render, size, seed, guide, share, progress)


@torch.no_grad()
def reference_flow(
    transformer: WanTransformer3DModel, reference: torch.Tensor, text: torch.Tensor, params: DiTFlowParams
) -> torch.Tensor:
    """The flow (F, P, F, 2) of clean latents (1, C, F, h, w), read at timestep 0 under `text` (tokens, channels)."""
    block = block_at(transformer, params.depth)
    q, k = queries_and_keys(transformer, block, reference, torch.zeros(1), text)
    return best_displacements(q, k, token_grid(transformer, reference))


def latent_flow(
    transformer: WanTransformer3DModel,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    text: torch.Tensor,
    params: DiTFlowParams,
) -> torch.Tensor:
    """The flow (F, P, F, 2) of noised latents (1, C, F, h, w), differentiable by them."""
    q, k = queries_and_keys(transformer, block_at(transformer, params.depth), latents, timestep, text)
    return mean_displacements(q, k, token_grid(transformer, latents), params.temperature)


def best_displacements(q: torch.Tensor, k: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    """From each token of each frame to the one of each frame that it attends to most: float32 (F, P, F, 2).

    q and k (S, N, D) of a token grid (F, rows, columns), P = rows * columns; displacements in tokens, down and right.
    """
    places = token_places(grid, q.device)
    return places[frame_logits(q, k, grid[0]).argmax(-1)] - places[None, :, None]


def mean_displacements(
    q: torch.Tensor, k: torch.Tensor, grid: tuple[int, int, int], temperature: float
) -> torch.Tensor:
    """As `best_displacements`, to the mean place under softmax(temperature * logits) over each frame's tokens."""
    places = token_places(grid, q.device)
    return (temperature * frame_logits(q, k, grid[0])).softmax(-1) @ places - places[None, :, None]


def frame_logits(q: torch.Tensor, k: torch.Tensor, frames: int) -> torch.Tensor:
    """mean over heads of q k^T / sqrt(D), float32 (F, P, F, P); the mean is one product, over heads and width at once.

    It takes 4 S^2 bytes, as do its softmax and the gradient: 4 GB each at 480 x 832 x 81.
    """
    _, heads, width = q.shape
    logits = q.float().flatten(1) @ k.float().flatten(1).T / (heads * width**0.5)
    return logits.unflatten(1, (frames, -1)).unflatten(0, (frames, -1))


def token_places(grid: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    """Row and column of each token of a frame, float32 (P, 2)."""
    _, rows, columns = grid
    axes = torch.arange(rows, device=device), torch.arange(columns, device=device)
    return torch.cartesian_prod(*axes).float()


def flow_loss(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of two flows (F, P, F, 2), a scalar in tokens squared."""
    return (found - target).square().mean()
