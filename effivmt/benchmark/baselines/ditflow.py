"""DiTFlow (arXiv 2412.07776, CVPR 2025): guides the latents so that attention links frames as in the reference.

The attention motion flow (AMF) of a pair of latent frames gives, for each token of the first, its
displacement in the second: to the token with the highest attention in the reference, and to the mean position under
the attention, which is differentiable, in the generated video. The loss is the mean squared difference of the two over
all ordered pairs of frames, at one middle block.
"""

from typing import Annotated

import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from pydantic import Field

from effivmt.benchmark.baselines.features import block_at, queries_and_keys, token_grid
from effivmt.config import Positive, Section
from effivmt.method import guided
from effivmt.method.guided import GuidedRequest, SamplingStep

Rate = Annotated[float, Field(gt=0)]


class DiTFlowParams(Section):
    """Params of DiTFlow; the defaults are the paper's, with counts of its 50 render steps given as shares."""

    guided_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the render steps that are guided, counted from the first (paper: 10 of 50)."""
    depth: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Depth, from 0 (first) to 1 (last), of the block whose attention is read."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """tau, which multiplies the attention logits: a larger value gives a sharper softmax."""
    adam_steps: Positive = 5
    """Adam steps on the latents before each guided step."""
    learning_rates: tuple[Rate, Rate] = (0.002, 0.001)
    """Adam's learning rate at the first and at the last guided step, linear in between."""


def generate(request: GuidedRequest, params: DiTFlowParams) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) that show the prompt with the motion of the reference.

    The reference is read under the negative prompt, which is empty by default, as in the paper. Raises as
    `guided.generate` and `guided.optimise` do.
    """
    transformer = request.backbone.transformer
    target = reference_flow(transformer, request.reference, request.negative, params)

    def guide(latents: torch.Tensor, step: SamplingStep) -> torch.Tensor:
        def loss(latents: torch.Tensor) -> torch.Tensor:
            flow = latent_flow(transformer, latents, step.timestep, request.prompt, params=params)
            return flow_loss(flow, target)

        return guided.optimise(latents, loss, params.adam_steps, step.interpolate(*params.learning_rates))

    return guided.generate(request, guide, params.guided_share)


@torch.no_grad()
def reference_flow(
    transformer: WanTransformer3DModel, reference: torch.Tensor, text: torch.Tensor, params: DiTFlowParams
) -> torch.Tensor:
    """Flow (F, P, F, 2) of clean latents (1, C, F, h, w), read at timestep 0 under `text` (tokens, channels)."""
    block = block_at(transformer, params.depth)
    q, k = queries_and_keys(transformer, block, reference, torch.zeros(1), text=text)
    return best_displacements(q, k, token_grid(transformer, reference))


def latent_flow(
    transformer: WanTransformer3DModel,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    text: torch.Tensor,
    *,
    params: DiTFlowParams,
) -> torch.Tensor:
    """Flow (F, P, F, 2) of noised latents (1, C, F, h, w), differentiable with respect to them."""
    block = block_at(transformer, params.depth)
    q, k = queries_and_keys(transformer, block, latents, timestep, text=text)
    return mean_displacements(q, k, token_grid(transformer, latents), params.temperature)


def best_displacements(q: torch.Tensor, k: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    """Displacement of each token to the token of each frame that it attends to most, float32 (F, P, F, 2).

    q and k (S, N, D) of a token grid (F, rows, columns), P = rows * columns; displacements (down, right) in tokens.
    """
    positions = token_positions(grid, q.device)
    return positions[frame_logits(q, k, grid[0]).argmax(-1)] - positions[None, :, None]


def mean_displacements(
    q: torch.Tensor, k: torch.Tensor, grid: tuple[int, int, int], temperature: float
) -> torch.Tensor:
    """As `best_displacements`, to the mean position under softmax(temperature * logits) over each frame's tokens."""
    positions = token_positions(grid, q.device)
    return (temperature * frame_logits(q, k, grid[0])).softmax(-1) @ positions - positions[None, :, None]


def frame_logits(q: torch.Tensor, k: torch.Tensor, frames: int) -> torch.Tensor:
    """Attention logits q k^T / sqrt(D), averaged over heads, float32 (F, P, F, P).

    They take 4 S^2 bytes, and so do their softmax and its gradient: 4 GB each at 480 x 832 x 81.
    """
    _, heads, width = q.shape
    # The sum over heads of q k^T is one product over the flattened heads and widths.
    logits = q.float().flatten(1) @ k.float().flatten(1).T / (heads * width**0.5)
    return logits.unflatten(1, (frames, -1)).unflatten(0, (frames, -1))


def token_positions(grid: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    """Row and column of each token of a frame, float32 (P, 2)."""
    _, rows, columns = grid
    axes = torch.arange(rows, device=device), torch.arange(columns, device=device)
    return torch.cartesian_prod(*axes).float()


def flow_loss(flow: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of two flows (F, P, F, 2): a scalar, in tokens squared."""
    return (flow - target).square().mean()
