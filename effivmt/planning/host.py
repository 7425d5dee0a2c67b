"""What a stage holds in the host's memory beside a GPU: weights on their way, weights that wait, LoRAs and pictures.

The pages of the weights' files are mapped, so the system takes them back where memory is short; they do not count.
"""

from torch import nn

LOADED_AT_ONCE = 4
"""Weights that the transformers library casts at a time, each in a thread; diffusers casts one."""
FLOATS = 3
"""Copies in float32 of a decoded video until it is bytes: as it was decoded, and an operation's input and output."""


def on_the_way(model: nn.Module, at_once: int = 1) -> int:
    """Bytes of the host while a model is loaded onto a GPU weight by weight: the largest weights, cast."""
    return sum(sorted((parameter.nbytes for parameter in model.parameters()), reverse=True)[:at_once])


def pictures(frames: int, height: int, width: int) -> int:
    """Bytes of the host while a decoded video becomes bytes."""
    return (4 * FLOATS + 1) * 3 * frames * height * width


def tuned(own: int) -> int:
    """Bytes of a branch's LoRA as it is tuned: a LoRA on all heads has `own`, and half of the heads are the branch's.

    Of eight matrices of one size, A and B of four projections, four have half of their rows or columns.
    """
    return own * 3 // 4


def saving(own: int) -> int:
    """Bytes of a checkpoint on the host: the weights and two moments."""
    return 3 * tuned(own)


def writing(own: int, looks: int) -> int:
    """Bytes of an adapter while it is written: both branches on all heads, alone and joined, and the one just tuned."""
    return 2 * (own + looks) + tuned(own)
