"""The sizes of the adapters under test, and what is known of one."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from effivmt.config import IngestParams, RenderParams

SIZE = IngestParams(num_frames=9, height=32, width=32)
RENDER = RenderParams(steps=3, flow_shift=3.0, guidance_scale=4.0, appearance_strength=1.0, motion_boundary=0.0)
RANKS = {"spatial": 2, "temporal": 3}
MAPS = {
    "mixed": np.array([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=bool),
    "a layer of one kind": np.array([[1, 1, 1, 1], [0, 0, 1, 0]], dtype=bool),
}


@dataclass
class Tuned:
    """An adapter folder, its head map, and the LoRA weights by split-module name."""

    folder: Path
    heads: object
    split: dict[str, dict[str, torch.Tensor]]
