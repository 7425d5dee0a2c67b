"""Draws what the training steps log: the curve of one step over all its phases."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from effivmt.media.figures import curve
from effivmt.media.video import write_image

Log = Mapping[str, Sequence[float]]


def write_loss_curve(path: Path, title: str, phases: Sequence[Log]) -> None:
    """Writes a PNG of the loss over the steps of all phases, one after the other.

    Logs with `frames` beside `loss` give a curve for each number of latent frames, at the steps that saw as many.
    """
    loss = np.concatenate([log["loss"] for log in phases])
    series = {"loss": loss}
    if "frames" in phases[0]:
        frames = np.concatenate([log["frames"] for log in phases])
        series = {_frames(count): np.where(frames == count, loss, np.nan) for count in np.unique(frames)}
    write_image(path, curve(series, title=title, xlabel="step", ylabel="loss"))


def write_psnr_curve(path: Path, title: str, phases: Sequence[Log]) -> None:
    """Writes a PNG of the PSNR of the crops that the steps saw."""
    series = {"PSNR": np.concatenate([log["psnr"] for log in phases])}
    write_image(path, curve(series, title=title, xlabel="step", ylabel="dB"))


def _frames(count: float) -> str:
    return f"{int(count)} latent frame{'s' if count > 1 else ''}"
