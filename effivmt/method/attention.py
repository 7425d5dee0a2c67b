"""The backend of diffusers' attention dispatcher that a transformer computes by: checked once, then set."""

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend, dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor, WanTransformer3DModel
from torch.nn import functional as F

from effivmt.config import NATIVE, BackboneParams
from effivmt.errors import ParamsError

_QUERIES, _KEYS, _HEADS = 128, 64, 2
_MOST_ERROR = 0.2
"""Of the trial's output: 8-bit products differ by some 5 % on random numbers, a wrong layout by 100 %."""


class ForwardOnlyProcessor(WanAttnProcessor):
    """Wan's attention by a backend without a backward pass; where gradients are computed, by torch's own."""

    def __init__(self, backend: AttentionBackendName) -> None:
        super().__init__()
        self.forward_only = backend

    @property
    def _attention_backend(self) -> AttentionBackendName:  # type: ignore[override]  # diffusers' is a plain attribute
        return AttentionBackendName.NATIVE if torch.is_grad_enabled() else self.forward_only


def set_attention(transformer: WanTransformer3DModel, params: BackboneParams) -> None:
    """Makes every attention of a transformer compute by `backbone.attention`, whatever diffusers' default is."""
    backend = AttentionBackendName(params.attention)
    forward_only = params.differentiable_attention != params.attention
    for module in transformer.modules():
        if isinstance(module, WanAttention):
            processor = ForwardOnlyProcessor(backend) if forward_only else WanAttnProcessor()
            if not forward_only:
                vars(processor)["_attention_backend"] = backend
            module.set_processor(processor)  # type: ignore[arg-type]  # diffusers' list lacks the processors of Wan


def check_attention(params: BackboneParams, device: torch.device, dtype: torch.dtype, head_width: int) -> None:
    """Tries `backbone.attention` on a few random tokens, forward and, where tuning takes it, backward.

    Raises ParamsError where diffusers has no such backend, its package is not installed, it does not run on this
    device in this precision, or it computes something else than attention.
    """
    name = params.attention
    if name == NATIVE:
        return
    if name not in {backend.value for backend in AttentionBackendName}:
        known = ", ".join(backend.value for backend in AttentionBackendName if not backend.value.startswith("_"))
        raise ParamsError(
            f"backbone.attention is {name!r:.40}, which is no backend of diffusers; expected one of {known}"
        )
    where = f"backbone.attention is {name} but it cannot be used on {device} in {str(dtype).removeprefix('torch.')}"
    try:
        error = _trial(params, device, dtype, head_width)
    except Exception as fault:  # the kernels' packages raise anything
        reason = " ".join(str(fault).split())[:300]
        raise ParamsError(f"{where} ({type(fault).__name__}: {reason}); set it to {NATIVE}") from fault
    if not error < _MOST_ERROR:
        raise ParamsError(f"{where} (it differs from {NATIVE} by {error:.0%}); set it to {NATIVE}")


def _trial(params: BackboneParams, device: torch.device, dtype: torch.dtype, head_width: int) -> float:
    """The greatest relative error of a backend's output and gradients beside torch's own attention in float32."""
    random = torch.Generator().manual_seed(0)
    shapes = [(1, tokens, _HEADS, head_width) for tokens in (_QUERIES, _KEYS, _KEYS, _QUERIES)]
    *inputs, weights = (torch.randn(shape, generator=random).to(device, dtype) for shape in shapes)
    backward = params.differentiable_attention == params.attention
    with attention_backend(params.attention), torch.set_grad_enabled(backward):  # it also fetches a kernel of the hub
        leaves = [tensor.clone().requires_grad_(backward) for tensor in inputs]
        q, k, v = leaves
        found = [dispatch_attention_fn(q, k, v, backend=AttentionBackendName(params.attention))]
        if backward:
            found += torch.autograd.grad(found[0], leaves, weights)
    exact = [tensor.float().requires_grad_(backward) for tensor in inputs]
    with torch.set_grad_enabled(backward):
        q, k, v = (tensor.transpose(1, 2) for tensor in exact)
        expected = [F.scaled_dot_product_attention(q, k, v).transpose(1, 2)]
        if backward:
            expected += torch.autograd.grad(expected[0], exact, weights.float())
    errors = [(one.float() - other).norm() / other.norm() for one, other in zip(found, expected, strict=True)]
    return max(error.item() for error in errors)
