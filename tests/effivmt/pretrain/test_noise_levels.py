"""Every noise level counts the same in the loss, once its expected loss is known."""

import torch

from effivmt.pretrain.noise_levels import LEVELS, NoiseLevels


def _train(levels: NoiseLevels, *, kind: str, scale: float = 1.0, steps: int = 400) -> None:
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        sigmas = torch.rand(64, generator=random)
        levels.weigh(scale * (0.5 + 3 * sigmas), sigmas, kind=kind)


def test_expected_losses_are_those_of_their_levels() -> None:
    levels = NoiseLevels(torch.device("cpu"))
    _train(levels, kind="still")
    middles = (torch.arange(LEVELS) + 0.5) / LEVELS
    torch.testing.assert_close(levels.expected[0], 0.5 + 3 * middles, atol=0.05, rtol=0.0)
    assert (levels.expected[1:] == 1).all()


def test_easy_and_hard_levels_have_gradients_of_the_same_size() -> None:
    levels = NoiseLevels(torch.device("cpu"))
    _train(levels, kind="still")
    _train(levels, kind="continued", scale=10.0)
    for kind in ("still", "continued"):
        sigmas = torch.tensor([0.03, 0.97])
        factors = torch.ones(2, requires_grad=True)
        errors = (1.0 if kind == "still" else 10.0) * (0.5 + 3 * sigmas) * factors
        levels.weigh(errors, sigmas, kind=kind).backward()
        torch.testing.assert_close(factors.grad, torch.tensor([0.5, 0.5]), atol=0.05, rtol=0.0)


def test_levels_without_samples_keep_their_means_and_the_last_level_holds_pure_noise() -> None:
    levels = NoiseLevels(torch.device("cpu"))
    levels.weigh(torch.tensor([3.0]), torch.tensor([1.0]), kind="still")
    assert (levels.expected[0, :-1] == 1).all() and levels.expected[0, -1] > 1
