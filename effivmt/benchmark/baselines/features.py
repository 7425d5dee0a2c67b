"""Features of one block of the frozen transformer, differentiable with respect to the latents.

The forward pass ends where the features are read: later blocks do not run.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanTransformer3DModel
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

from effivmt.method import head_scores
from effivmt.method.prediction import predict_velocity


def block_at(transformer: WanTransformer3DModel, depth: float) -> int:
    """Index of the block at a depth in [0, 1] of the transformer; 0.5 is the middle one."""
    layers: int = transformer.config["num_layers"]
    return min(int(depth * layers), layers - 1)


def token_grid(transformer: WanTransformer3DModel, latents: torch.Tensor) -> tuple[int, int, int]:
    """Number of tokens along time, height and width for latents (B, C, F, h, w); their product is S."""
    frames, height, width = (n // p for n, p in zip(latents.shape[2:], transformer.config["patch_size"], strict=True))
    return frames, height, width


def block_output(
    transformer: WanTransformer3DModel, block: int, latents: torch.Tensor, timestep: torch.Tensor, *, text: torch.Tensor
) -> torch.Tensor:
    """Output (S, channels) of one block.

    latents (1, C, F, h, w); timestep (1,) in [0, 1000]; text (tokens, channels).
    """
    outputs: list[torch.Tensor] = []

    def after(_module: nn.Module, _args: tuple[Any, ...], output: torch.Tensor) -> NoReturn:
        outputs.append(output[0])
        raise _FeaturesReadError

    hook = transformer.blocks[block].register_forward_hook(after)
    _run_until_read(hook, transformer, latents, timestep, text=text)
    return outputs[0]


def queries_and_keys(
    transformer: WanTransformer3DModel, block: int, latents: torch.Tensor, timestep: torch.Tensor, *, text: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """q and k, each (S, N, D), of one block's self-attention after norm and RoPE; inputs as of `block_output`."""
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def before(attention: WanAttention, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NoReturn:
        pairs.append(head_scores.queries_and_keys(attention, args, kwargs))
        raise _FeaturesReadError

    hook = transformer.blocks[block].get_submodule("attn1").register_forward_pre_hook(before, with_kwargs=True)
    _run_until_read(hook, transformer, latents, timestep, text=text)
    return pairs[0]


@contextmanager
def checkpointed(transformer: WanTransformer3DModel, *, needed: bool) -> Iterator[None]:
    """Gradient checkpointing while the context lasts, where it is needed; results are the same, a block that is read
    here runs without it.
    """
    if needed:
        transformer.enable_gradient_checkpointing(_checkpoint_unread)
    try:
        yield
    finally:
        if needed:
            transformer.disable_gradient_checkpointing()


def _checkpoint_unread(block: nn.Module, *args: torch.Tensor) -> torch.Tensor:
    """The output of a block, whose activations are computed again in the backward pass unless a hook reads them."""
    if block._forward_hooks or block.get_submodule("attn1")._forward_pre_hooks:
        return block(*args)
    return checkpoint(block, *args, use_reentrant=False)


class _FeaturesReadError(Exception):
    """Ends a forward pass once its features have been read."""


def _run_until_read(
    hook: RemovableHandle,
    transformer: WanTransformer3DModel,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    *,
    text: torch.Tensor,
) -> None:
    """Runs the transformer until `hook` raises _FeaturesReadError, and removes the hook whatever happens."""
    device, dtype = transformer.device, transformer.dtype
    try:
        predict_velocity(transformer, latents.to(device, dtype), timestep.to(device), text[None].to(device, dtype))
    except _FeaturesReadError:
        return
    finally:
        hook.remove()
    raise AssertionError("the forward pass did not reach the block")
