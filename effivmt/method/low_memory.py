"""A transformer in less GPU memory, by diffusers' own means: weights kept in 8 bits, blocks that wait on the host."""

from contextlib import AbstractContextManager, nullcontext

import torch
from diffusers.hooks.group_offloading import apply_group_offloading
from diffusers.hooks.layerwise_casting import apply_layerwise_casting
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

FLOAT8 = torch.float8_e4m3fn


def store_in_float8(transformer: WanTransformer3DModel) -> None:
    """Keeps the linear layers of the blocks in 8 bits; each is cast up while it computes.

    The norms, the embeddings and the last projection stay as they are.
    """
    compute = transformer.dtype
    for block in transformer.blocks:
        apply_layerwise_casting(block, storage_dtype=FLOAT8, compute_dtype=compute)


def offload_blocks(transformer: WanTransformer3DModel, device: torch.device) -> None:
    """Keeps the blocks in the host's memory and brings each to `device` when it computes, on a GPU one ahead.

    For forward passes alone: a backward pass would find the weights gone.
    """
    on_gpu = device.type == "cuda"
    apply_group_offloading(
        transformer,
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=on_gpu,
        record_stream=on_gpu,
    )


def activations_on_host(device: torch.device, *, needed: bool) -> AbstractContextManager[object]:
    """Within the context, where it is needed, what a forward pass on `device` saves waits in the host's memory.

    With gradient checkpointing that is the input of every block; a block's own activations never leave the GPU.
    """
    return torch.autograd.graph.save_on_cpu(pin_memory=device.type == "cuda") if needed else nullcontext()
