"""What one block of the frozen transformer sees and gives, differentiable by the latents; later blocks do not run."""

import torch
from diffusers import WanTransformer3DModel
from torch.utils.hooks import RemovableHandle

from effivmt.method import heads


def block_at(transformer: WanTransformer3DModel, depth: float) -> int:
    """Index of the block at a depth in [0, 1] of the transformer; 0.5 is its middle one."""
    layers = transformer.config.num_layers
    return min(int(depth * layers), layers - 1)


def token_grid(transformer: WanTransformer3DModel, latents: torch.Tensor) -> tuple[int, int, int]:
    """Tokens along time, height and width of latents (B, C, F, h, w); their product is S."""
    frames, height, width = (n // p for n, p in zip(latents.shape[2:], transformer.config.patch_size, strict=True))
    return frames, height, width


def block_output(
    transformer: WanTransformer3DModel, block: int, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """Output (S, C) of one block for latents (1, C, F, h, w), timestep (1,) and text (tokens, channels)."""

    def after(_module, _args, output):
        raise _ReachedError(output[0])

    hook = transformer.blocks[block].register_forward_hook(after)
    return _run_until(hook, transformer, latents, timestep, text)


def queries_and_keys(
    transformer: WanTransformer3DModel, block: int, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """q and k, each (S, N, D), of one block's self-attention after norm and RoPE; inputs as of `block_output`."""

    def before(attention, args, kwargs):
        raise _ReachedError(heads.queries_and_keys(attention, args, kwargs))

    hook = transformer.blocks[block].attn1.register_forward_pre_hook(before, with_kwargs=True)
    return _run_until(hook, transformer, latents, timestep, text)


class _ReachedError(Exception):
    """Ends a forward pass at the value that was wanted of it."""

    def __init__(self, value) -> None:
        super().__init__()
        self.value = value


def _run_until(
    hook: RemovableHandle,
    transformer: WanTransformer3DModel,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    text: torch.Tensor,
):
    to = {"device": transformer.device, "dtype": transformer.dtype}
    try:
        transformer(latents.to(**to), timestep.to(transformer.device), text[None].to(**to), return_dict=False)
    except _ReachedError as reached:
        return reached.value
    finally:
        hook.remove()
    raise AssertionError("the forward pass did not reach the block")
