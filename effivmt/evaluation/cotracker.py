"""Point tracks by CoTracker3 (offline), for users who have its package and a checkpoint: the tracker of the papers.

The package is not in the registry: `pip install git+https://github.com/facebookresearch/co-tracker`. A checkpoint is a
safetensors file; docs/benchmark.md says how to convert the published one.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from effivmt.errors import BackboneError
from effivmt.evaluation.tracks import BIRTHS, Tracks, check_frames, lasting

WINDOW = 60
"""Frames of CoTracker3's window; its time embedding is stretched to other lengths."""
_INSTALL = "pip install git+https://github.com/facebookresearch/co-tracker"


class CoTracker:
    """Follows a grid of points through a clip; called as `tracks.track` is."""

    def __init__(self, checkpoint: Path) -> None:
        """Loads a checkpoint, *.safetensors; BackboneError if the package or the file is missing or does not fit."""
        try:
            from cotracker.predictor import CoTrackerPredictor  # type: ignore[import-not-found]  # users install it
        except ImportError as error:
            raise BackboneError(f"evaluate.cotracker needs the package cotracker: {_INSTALL}") from error
        self.predictor = CoTrackerPredictor(checkpoint=None, offline=True, v2=False, window_len=WINDOW)
        try:
            self.predictor.model.load_state_dict(load_file(checkpoint))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BackboneError(
                f"CoTracker checkpoint {checkpoint} cannot be loaded ({reason}); give CoTracker3's offline weights as "
                "safetensors"
            ) from error

    def __call__(self, frames: np.ndarray, *, grid: int = 8) -> Tracks:
        """Tracks of frames uint8 (T, H, W, 3): grid x grid points born at each of `BIRTHS` frames, textured or not.

        Of each point the unbroken visible span around its birth counts; a span of less than a quarter of the clip is
        dropped. Raises VideoError if frames are of another kind or fewer than 2.
        """
        check_frames(frames)
        num_frames, height, width = frames.shape[:3]
        queries = grid_queries(num_frames, height, width, grid)
        video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float()
        points, visible = self.predictor(video, queries=torch.from_numpy(queries)[None], backward_tracking=True)
        births = queries[:, 0].astype(int)
        return lasting(one_span(points[0].transpose(0, 1).numpy(), visible[0].T.numpy(), births))


def grid_queries(num_frames: int, height: int, width: int, grid: int) -> np.ndarray:
    """(frame, x, y) float32 (BIRTHS * grid * grid, 3): cell centres, at frames spread over the clip."""
    births = np.linspace(0, num_frames - 1, BIRTHS).round()
    rows, columns = (((np.arange(grid) + 0.5) / grid * side - 0.5) for side in (height, width))
    t, y, x = np.meshgrid(births, rows, columns, indexing="ij")
    return np.stack([t, x, y], axis=-1).reshape(-1, 3).astype(np.float32)


def one_span(points: np.ndarray, visible: np.ndarray, births: np.ndarray) -> Tracks:
    """Tracks of points (N, T, 2), visible (N, T), cut to the unbroken visible span around each one's birth (N,).

    Outside it a point keeps its first or last visible position, as in `Tracks`.
    """
    count, length = visible.shape
    frames = np.arange(length)
    gaps = np.where(visible, -1, frames)
    before = np.where(frames < births[:, None], gaps, -1).max(1)
    gaps = np.where(visible, length, frames)
    after = np.where(frames > births[:, None], gaps, length).min(1)
    within = np.clip(frames, before[:, None] + 1, after[:, None] - 1)
    shown = (frames > before[:, None]) & (frames < after[:, None])
    return Tracks(points[np.arange(count)[:, None], within].astype(np.float32), shown)
