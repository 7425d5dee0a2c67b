"""A transformer block as tuning runs it: what diffusers' block computes, to rounding, in fewer passes over memory.

The text and the image do not change while a clip is tuned, so their keys and values are computed once and shared by a
batch. The norm of q and k and their RoPE are one function with a backward pass of its own, the modulation one operation
each.
"""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor, WanTransformerBlock
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from effivmt.method.branch_lora import BranchLora, project_in, project_out


@dataclass
class TunedBlock:
    """The `forward` of a block while the dual path lasts; `is_temporal` bool (N,) are its heads, None: not decoupled.

    `lora` is that of the branch that is tuned, `text` and `image` the keys and values (1, tokens, N, D) that are held.
    """

    block: WanTransformerBlock
    is_temporal: np.ndarray | None
    lora: BranchLora | None = None
    text: tuple[torch.Tensor, torch.Tensor] | None = None
    image: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(
        self,
        hidden: torch.Tensor,
        text: torch.Tensor,
        temb: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """hidden (B, S, C), text (B, tokens, C) which is not read where keys and values are held, temb (B, 6, C) or
        (B, S, 6, C), and cos and sin (B, S, 1, D)."""
        block = self.block
        table = block.scale_shift_table + temb.float()
        shift, scale, gate, ff_shift, ff_scale, ff_gate = (
            table.unbind(2) if temb.ndim == 4 else (part[:, None] for part in table.unbind(1))
        )
        x = self._self_attention(_modulated(hidden, shift, scale, block.norm1.eps), rotary)
        hidden = torch.addcmul(hidden, x, gate).type_as(hidden)
        x = self._cross_attention(block.norm2(hidden.float()).type_as(hidden), text)
        hidden = hidden + x
        x = block.ffn(_modulated(hidden, ff_shift, ff_scale, block.norm3.eps))
        return torch.addcmul(hidden, x, ff_gate).type_as(hidden)

    def hold(self, text: torch.Tensor, image: torch.Tensor | None = None) -> None:
        """Computes keys and values of embedded text and image, each (1, tokens, C), for every further call."""
        with torch.no_grad():
            self.text = _keys_and_values(self.block.attn2, text)
            self.image = None if image is None else _image_keys_and_values(self.block.attn2, image)

    def _self_attention(self, x: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        attention = self.block.attn1
        q, k, v = project_in(x, attention, self.lora)
        turn = torch.complex(rotary[0][..., 0::2].float(), rotary[1][..., 1::2].float())
        q = _RotatedNorm.apply(q, attention.norm_q.weight, turn, attention.norm_q.eps)
        k = _RotatedNorm.apply(k, attention.norm_k.weight, turn, attention.norm_k.eps)
        heads = _attend(attention, q, k, v.unflatten(2, (attention.heads, -1)))
        return project_out(heads.flatten(2), attention, self.lora)

    def _cross_attention(self, x: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        attention = self.block.attn2
        q = _RotatedNorm.apply(attention.to_q(x), attention.norm_q.weight, None, attention.norm_q.eps)
        if self.text is None:
            heads = _attend(attention, q.unflatten(2, (attention.heads, -1)), *_keys_and_values(attention, text))
        else:  # one sequence of all samples' queries
            q = q.view(1, -1, attention.heads, q.shape[2] // attention.heads)
            heads = _attend(attention, q, *self.text)
            if self.image is not None:
                heads = heads + _attend(attention, q, *self.image)
        return attention.to_out[0](heads.reshape(x.shape))


def _attend(attention: WanAttention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(D)) v over (B, S, N, D), by the backend that is set in diffusers."""
    processor = cast(WanAttnProcessor, attention.processor)
    return dispatch_attention_fn(q, k, v, backend=processor._attention_backend)


def _keys_and_values(attention: WanAttention, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    k = attention.norm_k(attention.to_k(text)).unflatten(2, (attention.heads, -1))
    return k, attention.to_v(text).unflatten(2, (attention.heads, -1))


def _image_keys_and_values(attention: WanAttention, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    k, v = attention.get_submodule("add_k_proj")(image), attention.get_submodule("add_v_proj")(image)
    k = attention.get_submodule("norm_added_k")(k).unflatten(2, (attention.heads, -1))
    return k, v.unflatten(2, (attention.heads, -1))


def _modulated(hidden: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    """LayerNorm (B, S, C) without weights, times 1 + scale plus shift, in float32."""
    normed = F.layer_norm(hidden.float(), hidden.shape[-1:], eps=eps)
    return torch.addcmul(shift, normed, 1 + scale).type_as(hidden)


class _RotatedNorm(torch.autograd.Function):
    """RMSNorm of x (B, S, C) over its channels, then RoPE: complex (B, S, 1, D / 2) turns the pairs of channels.

    It gives (B, S, N, D), and (B, S, C) where `turn` is None and nothing is turned; no gradient of the weight.
    """

    @staticmethod
    def forward(  # noqa: PLR0917  (torch calls it by position)
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, turn: torch.Tensor | None, eps: float
    ) -> torch.Tensor:
        wide = x.float()
        mean_square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square() / x.shape[-1]
        inverse = (mean_square + eps).rsqrt()
        y = (wide * inverse).mul_(weight)
        if turn is not None:
            y = y.unflatten(2, (-1, 2 * turn.shape[-1]))
            torch.view_as_complex(y.unflatten(3, (-1, 2))).mul_(turn)
        ctx.save_for_backward(x, inverse, weight, turn)
        return y.type_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, inverse, weight, turn = ctx.saved_tensors
        wide = gradient.float()
        if turn is None:
            total = wide * weight
        else:
            turned = wide.new_empty(gradient.shape)  # contiguous, whatever the order of the gradient in memory
            pairs = (torch.view_as_complex(part.unflatten(3, (-1, 2))) for part in (wide, turned))
            torch.mul(next(pairs), turn.conj(), out=next(pairs))
            total = turned.flatten(2).mul_(weight)
        along = (total * x).sum(-1, keepdim=True) * inverse.pow(3) / x.shape[-1]
        total = total.mul_(inverse).addcmul_(x.float(), along, value=-1)
        return total.type_as(x), None, None, None
