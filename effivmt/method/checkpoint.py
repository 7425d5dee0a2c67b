"""Training state that survives a kill: weights, AdamW moments and logs in one safetensors file, replaced atomically."""

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_checkpoint(
    path: Path,
    step: int,
    weights: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    logs: dict[str, list[float]],
) -> None:
    """Writes `weights`, the optimizer's state and `logs` (name -> value of each step) after `step` steps.

    A reader sees the old file or the new one, never a part of it.
    """
    tensors = {f"weights.{name}": tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": state[name].detach().cpu().contiguous().clone() for name in _MOMENTS}
    temporary = path.with_name(path.name + ".partial")
    save_file(tensors, temporary, metadata={"step": str(step), "logs": json.dumps(logs)})
    os.replace(temporary, path)


def load_checkpoint(
    path: Path, weights: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, list[float]]]:
    """Restores `weights` (in place) and the optimizer from `path`; returns the steps done and the logs.

    Without a file at `path` nothing changes and (0, {}) is returned.
    """
    if not path.exists():
        return 0, {}
    with safe_open(path, framework="pt") as file:
        with torch.no_grad():
            for name, tensor in weights.items():
                tensor.copy_(file.get_tensor(f"weights.{name}"))
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key in file.keys():  # noqa: SIM118  (safe_open is not a mapping)
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                state.setdefault(int(index), {})[name] = file.get_tensor(key)
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        metadata = file.metadata()
    return int(metadata["step"]), json.loads(metadata["logs"])
