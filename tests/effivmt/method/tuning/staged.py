"""The two tuning stages with the settings they share, on a transformer of random weights."""

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save as to_bytes

from effivmt.config import SamplingParams, SpatialParams, TemporalParams
from effivmt.method.heads import HeadMap
from effivmt.method.tuning import TuningResult, tune_spatial, tune_temporal

FRAMES = 17  # pixel frames of the dense clip: 5 latent frames
MAPS = {
    "mixed": np.array([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=bool),
    "first layer all spatial": np.array([[0, 0, 0, 0], [0, 1, 1, 0]], dtype=bool),
    "first layer all temporal": np.array([[1, 1, 1, 1], [0, 1, 1, 0]], dtype=bool),
}
SAMPLING = SamplingParams(mode="latent", frames=9, phases=2)
SIZE = {"rank": 2, "steps": 4, "batch": 2, "save_every": 1, "learning_rate": 1e-2, "flow_shift": 3.0}


def head_map(is_temporal: np.ndarray = MAPS["mixed"]) -> HeadMap:
    return HeadMap(np.zeros(is_temporal.shape), np.zeros(is_temporal.shape), is_temporal)


class Stage:
    """Runs one of the two stages with the settings they share."""

    def __init__(self, name: str, clip: dict[str, torch.Tensor], checkpoint) -> None:
        self.name, self.clip, self.checkpoint = name, clip, checkpoint

    def __call__(self, transformer, heads=None, progress=None, sampling=SAMPLING, **changes) -> TuningResult:
        """Tunes with these changes of the params, also with such as the params refuse."""
        self.notices = []
        common = {"seed": 0, "clip": "clip", "checkpoint": self.checkpoint, "progress": progress}
        common["on_divergence"] = self.notices.append
        heads = heads or head_map()
        if self.name == "spatial":
            params = SpatialParams(**SIZE).model_copy(update=changes)
            return tune_spatial(transformer, heads, self.clip["single"], self.clip["caption"], params=params, **common)
        params = TemporalParams(**SIZE).model_copy(update=changes)
        latents, caption = self.clip["dense"], self.clip["caption"]
        return tune_temporal(
            transformer, heads, latents, caption, params=params, sampling=sampling, num_frames=FRAMES, **common
        )


def bytes_of(tuned: TuningResult) -> bytes:
    return to_bytes(tuned.weights)


def state_of(transformer: WanTransformer3DModel) -> tuple[list, bytes, set[str]]:
    """Modules by identity, the bytes of the weights, and the names of the instance's attributes."""
    modules = [(name, id(module)) for name, module in transformer.named_modules()]
    return modules, to_bytes(transformer.state_dict()), set(vars(transformer))
