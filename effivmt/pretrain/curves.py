"""Draws what the training steps log: the curve of one step over all its phases."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from effivmt.media.figures import curve
from effivmt.media.video import write_image

Log = Mapping[str, Sequence[float]]


def write_loss_curve(path: Path, title: str, phases: Sequence[Log]) -> None:
    """Writes a PNG of the loss over the steps of all phases, one after the other.

    Logs with `frames` beside `loss` give a curve for each of the three commonest numbers of latent frames, at the steps
    that saw as many and were given none of them.
    """
    loss = np.concatenate([log["loss"] for log in phases])
    series = {"loss": loss.tolist()}
    if "frames" in phases[0]:
        frames, given = (np.concatenate([log[name] for log in phases]) for name in ("frames", "given"))
        counts, steps = np.unique(frames, return_counts=True)
        common = np.sort(counts[np.argsort(steps)[-3:]])
        series = {_frames(count): np.where((frames == count) & (given == 0), loss, np.nan).tolist() for count in common}
    write_image(path, curve(series, title=title, xlabel="step", ylabel="loss"))


def write_psnr_curve(path: Path, title: str, phases: Sequence[Log]) -> None:
    """Writes a PNG of the PSNR of the crops that the steps saw."""
    series = {"PSNR": np.concatenate([log["psnr"] for log in phases]).tolist()}
    write_image(path, curve(series, title=title, xlabel="step", ylabel="dB"))


def _frames(count: float) -> str:
    return f"{int(count)} latent frame{'s' if count > 1 else ''}"
