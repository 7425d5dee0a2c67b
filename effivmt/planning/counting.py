"""Counts what code takes: the bytes of its tensors while they live, and its FLOPs.

On tensors without data (torch's meta device) the code is the real one but computes nothing: a stage of a 14B model is
counted in seconds on any machine.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

META = torch.device("meta")
_SCALAR, _COPY = torch.ops.aten._local_scalar_dense.default, torch.ops.aten._to_copy.default


class Counter(TorchDispatchMode):
    """Counts, while it lasts, the tensors of one kind of device ("meta", "cpu" or "cuda") and the FLOPs of all.

    bytes: of the tensors that are alive; peak: the most since the beginning; flops: a multiplication and an addition
    are two. Code that asks a tensor without data for a number is told 1, and yes; one that is copied to the processor
    becomes zeros that take no memory: host_bytes and host_peak say what such copies would take there.
    """

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.device, self.bytes, self.peak, self.flops = device, 0, 0, 0
        self.host_bytes, self.host_peak = 0, 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._on_host: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def add(self, tensors: Sequence[torch.Tensor], *, elsewhere: bool = False) -> None:
        """Counts tensors that were made before, such as a model's weights; those that are elsewhere as nothing."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            address = storage._cdata
            if tensor.device.type == self.device and address not in self._alive:
                size = 0 if elsewhere else storage.nbytes()
                self._alive[address] = weakref.ref(storage, partial(self._freed, address, size))
                self.bytes += size
                self.peak = max(self.peak, self.bytes)

    def _freed(self, address: int, size: int, _: object) -> None:
        self._alive.pop(address)
        self.bytes -= size

    def _copied_to_host(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Zeros of a tensor's shape that take no memory and count as what a copy takes, while they live."""
        zeros = torch.zeros((), dtype=dtype)
        storage, size = zeros.untyped_storage(), tensor.numel() * dtype.itemsize
        self._on_host[storage._cdata] = weakref.ref(storage, partial(self._freed_on_host, storage._cdata, size))
        self.host_bytes += size
        self.host_peak = max(self.host_peak, self.host_bytes)
        return zeros.expand(tensor.shape)

    def _freed_on_host(self, address: int, size: int, _: object) -> None:
        self._on_host.pop(address)
        self.host_bytes -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        without_data = bool(args) and isinstance(args[0], torch.Tensor) and args[0].device == META
        if without_data and func is _SCALAR:
            return True if args[0].dtype == torch.bool else 1.0
        if without_data and func is _COPY and torch.device(kwargs.get("device") or META).type == "cpu":
            return self._copied_to_host(args[0], kwargs.get("dtype") or args[0].dtype)
        result = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
        self.add([leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)])
        return result


@contextmanager
def _attention_as_on_a_gpu() -> Iterator[None]:
    """Attention without data takes what flash attention takes; torch would count a map of all tokens by all tokens.

    Attention with data stays what it is, so that other threads may compute meanwhile.
    """
    stock: Callable[..., torch.Tensor] = F.scaled_dot_product_attention

    def attention(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        if query.device != META or kwargs.get("attn_mask") is not None:
            return stock(query, key, value, *args, **kwargs)
        output: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        return output

    setattr(F, "scaled_dot_product_attention", attention)  # noqa: B010  (mypy lets no function be assigned to)
    try:
        yield
    finally:
        setattr(F, "scaled_dot_product_attention", stock)  # noqa: B010


@contextmanager
def counted(weights: Sequence[torch.nn.Module], elsewhere: Sequence[torch.nn.Module] = ()) -> Iterator[Counter]:
    """Counts what runs within the context on the meta device, beside the weights and buffers of these models.

    Weights of modules that are elsewhere count as nothing, also where the code looks at them.
    """
    counter = Counter()
    for model in weights:
        counter.add([*model.parameters(), *model.buffers()])
    for model in elsewhere:
        counter.add([*model.parameters(), *model.buffers()], elsewhere=True)
    with _attention_as_on_a_gpu(), counter:
        yield counter
