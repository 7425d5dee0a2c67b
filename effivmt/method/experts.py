"""The transformers of a backbone: one for all noise levels or, as in Wan 2.2 A14B, two experts that share them.

Adapters, head maps and losses are named after the expert that they are of.
"""

from dataclasses import dataclass

HIGH, LOW = "high_noise", "low_noise"
NoiseRange = tuple[float, float]
"""The least noise level and the greatest, sigma in [0, 1]."""
EVERY_LEVEL: NoiseRange = (0.0, 1.0)


@dataclass(frozen=True)
class Expert:
    """One transformer of a backbone.

    component: its folder in the backbone's; name: `high_noise` or `low_noise`, empty where there is no other; noise:
    the levels that it is for; expand_timesteps: whether it is given a timestep for each token (Wan 2.2 TI2V).
    """

    component: str = "transformer"
    name: str = ""
    noise: NoiseRange = EVERY_LEVEL
    expand_timesteps: bool = False

    def named(self, word: str) -> str:
        """What is of this expert: `heads` is `heads_low_noise` of the low-noise one, and `heads` of the only one."""
        return named(word, self.name)

    def takes(self, sigma: float) -> bool:
        """Whether sampling asks this expert at a noise level; the level at the boundary is the high-noise one's."""
        low, high = self.noise
        return low <= sigma < high or (sigma == high == EVERY_LEVEL[1])


ONLY = Expert()
"""The transformer of a backbone that has no other, such as Wan 2.1."""


def named(word: str, expert: str) -> str:
    """`word` for an expert of that name, which is empty for the only one."""
    return f"{word}_{expert}" if expert else word


def experts_of(boundary: float | None, *, expand_timesteps: bool = False) -> tuple[Expert, ...]:
    """The experts of a backbone, the one that sampling begins with first; boundary: the noise level between two."""
    if boundary is None:
        return (Expert(expand_timesteps=expand_timesteps),)
    return (
        Expert("transformer", HIGH, (boundary, EVERY_LEVEL[1]), expand_timesteps),
        Expert("transformer_2", LOW, (EVERY_LEVEL[0], boundary), expand_timesteps),
    )
