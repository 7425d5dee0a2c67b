"""Training state that survives a kill: weights, AdamW moments and logs in one safetensors file, replaced atomically.

The file's metadata hold the steps, the logs and a digest of all of it, which a reader checks.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from effivmt.errors import DamageError
from effivmt.store.digests import canonical_json
from effivmt.store.durable import remove, replace_durably

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_UNSEALED = {"step", "logs"}
"""The metadata of checkpoints that versions before 0.2 wrote: they have no digest and are taken as they are."""


def save_checkpoint(
    path: Path,
    step: int,
    weights: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    logs: dict[str, list[float]],
) -> None:
    """Writes `weights`, the optimizer's state and `logs` (name -> value of each step) after `step` steps.

    A reader sees the old file or the new one, never a part of it, whatever ends the process or the machine.
    """
    tensors = {f"weights.{name}": tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": state[name].detach().cpu().contiguous().clone() for name in _MOMENTS}
    metadata = {"step": str(step), "logs": json.dumps(logs)}
    temporary = path.with_name(path.name + ".partial")
    save_file(tensors, temporary, metadata=metadata | {"sha256": _digest(tensors, metadata)})
    replace_durably(temporary, path)


def load_checkpoint(
    path: Path, weights: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, list[float]]]:
    """Restores `weights` (in place) and the optimizer from `path`; returns the steps done and the logs.

    Without a file at `path` nothing changes and (0, {}) is returned. A damaged file is deleted, and DamageError raised:
    the next call begins anew.
    """
    try:
        if not path.is_symlink() and not path.exists():
            return 0, {}
        tensors, metadata = _read(path)
    except (ValueError, SafetensorError) as error:
        remove(path)
        raise DamageError("", path, f"is a damaged checkpoint ({' '.join(str(error).split()):.100})") from error
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(tensors[f"weights.{name}"])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"]), json.loads(metadata["logs"])


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a checkpoint; ValueError or SafetensorError where it is not what was written."""
    if path.is_symlink() or not path.is_file():
        raise ValueError("it is no plain file")
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
        metadata = dict(file.metadata() or {})
    digest = metadata.pop("sha256", None)
    if digest != _digest(tensors, metadata) and not (digest is None and metadata.keys() == _UNSEALED):
        raise ValueError("its sha256 differs")
    return tensors, metadata


def _digest(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 over the metadata and over name, type, shape and bytes of every tensor, in order of name."""
    digest = hashlib.sha256(canonical_json(metadata))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]))
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
