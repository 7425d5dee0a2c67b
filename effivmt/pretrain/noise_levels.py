"""Weighs the flow-matching loss of each noise level by what that level's loss is expected to be."""

import torch
from torch.nn import functional as F

LEVELS = 16
KINDS = ("still", "clip", "continued")
"""A continued clip is one whose first latent frame is given."""
_DECAY = 0.98


class NoiseLevels:
    """Running means of the loss at `LEVELS` equal steps of sigma, separate for each of `KINDS`.

    Near sigma 1, where a prompt does not yet say where things are, most of the loss cannot be learned, and what can
    be is drowned by its gradients' noise; divided by the expected loss every level counts the same (the uncertainty
    weighting of Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", with running means
    in place of their small network). `expected` float32 (kinds, LEVELS) is the state; it is updated in place.
    """

    def __init__(self, device: torch.device) -> None:
        self.expected = torch.ones(len(KINDS), LEVELS, device=device)

    def weigh(self, errors: torch.Tensor, sigmas: torch.Tensor, *, kind: str) -> torch.Tensor:
        """The loss, a scalar, of mean squared errors (B,) of samples at noise levels sigmas (B,); updates the means."""
        row = self.expected[KINDS.index(kind)]
        level = F.one_hot((sigmas * LEVELS).long().clamp(max=LEVELS - 1), LEVELS).to(row.dtype)
        count, total = level.sum(0), errors.detach() @ level
        row.lerp_(torch.where(count > 0, total / count.clamp(min=1), row), 1 - _DECAY**count)
        return (errors / (level @ row)).mean()
