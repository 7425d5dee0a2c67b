"""The flow-matching identities, and what the motion loss does and does not see."""

from itertools import pairwise

import pytest
import torch

from effivmt.method.losses import add_noise, denoising_loss, draw_sigmas, motion_loss, velocity


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 4, 3, 5, 6, generator=random) for _ in range(2))


class TestFlowMatching:
    def test_the_path_runs_from_latents_to_noise_at_the_velocity(self, pair):
        latents, noise = pair
        v, sigmas = velocity(latents, noise), torch.tensor([0.3, 0.8])
        noised = add_noise(latents, noise, sigmas)
        back = noised - sigmas.view(2, 1, 1, 1, 1) * v
        ahead = noised + (1 - sigmas).view(2, 1, 1, 1, 1) * v
        assert torch.allclose(back, latents, atol=1e-6) and torch.allclose(ahead, noise, atol=1e-6)

    def test_each_sample_has_its_own_noise_level(self, pair):
        latents, noise = pair
        noised = add_noise(latents, noise, torch.tensor([0.0, 1.0]))
        assert torch.equal(noised[0], latents[0]) and torch.equal(noised[1], noise[1])

    def test_denoising_loss_is_the_mean_square_in_float32(self, pair):
        a, b = pair
        assert denoising_loss(a, b).item() == pytest.approx(((a - b) ** 2).mean().item(), rel=1e-6)
        assert denoising_loss(a.bfloat16(), b).dtype == torch.float32
        assert denoising_loss(a, a) == 0


class TestMotionLoss:
    def test_is_zero_for_equal_and_two_for_opposite_changes(self, pair):
        v, _ = pair
        assert motion_loss(v, v).item() == pytest.approx(0, abs=1e-6)
        assert motion_loss(-v, v).item() == pytest.approx(2, abs=1e-6)

    def test_sees_neither_scale_nor_what_all_frames_share(self, pair):
        v, other = pair
        expected = motion_loss(other, v)
        assert torch.allclose(motion_loss(7.5 * other, 0.01 * v), expected, atol=1e-5)
        still = torch.randn(2, 4, 1, 5, 6, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(motion_loss(other + still, v - still), expected, atol=1e-5)
        assert 0.5 < expected < 1.5

    def test_is_the_mean_over_places_of_cosines_over_channels(self, pair):
        a, b = pair
        cosines = []
        for batch in range(2):
            for frame in (1, 2):
                for row in range(5):
                    for column in range(6):
                        da, db = (v[batch, :, frame, row, column] - v[batch, :, frame - 1, row, column] for v in (a, b))
                        cosines.append((da @ db / (da.norm() * db.norm())).item())
        assert motion_loss(a, b).item() == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-6)

    def test_is_zero_for_a_single_frame(self, pair):
        a, b = (v[:, :, :1] for v in pair)
        loss = motion_loss(a.requires_grad_(), b)
        assert loss.shape == () and loss == 0

    def test_its_gradient_turns_the_prediction_towards_the_target(self, pair):
        a, b = pair[0].clone().requires_grad_(), pair[1]
        before = motion_loss(a, b)
        (gradient,) = torch.autograd.grad(before, a)
        assert motion_loss(a - 10 * gradient, b) < before

    def test_low_precision_is_compared_in_float32(self, pair):
        a, b = pair
        assert motion_loss(a.bfloat16(), b.bfloat16()).dtype == torch.float32


class TestDrawSigmas:
    def draw(self, shift: float, count: int = 20000) -> torch.Tensor:
        return draw_sigmas(count, shift, torch.Generator().manual_seed(0))

    def test_rise_with_the_shift_and_stay_in_range(self):
        draws = [self.draw(shift) for shift in (0.5, 1.0, 3.0, 5.0, 12.0)]
        for lower, higher in pairwise(draws):
            assert (lower <= higher).all() and lower.mean() < higher.mean() - 0.05
        assert all(d.min() >= 0 and d.max() < 1 and d.dtype == torch.float32 for d in draws)

    def test_have_the_quantiles_of_the_shifted_uniform(self):
        for shift in (1.0, 3.0, 5.0):
            for u in (0.1, 0.5, 0.9):
                expected = shift * u / (1 + (shift - 1) * u)
                assert self.draw(shift).quantile(u).item() == pytest.approx(expected, abs=0.02)

    def test_one_lies_in_each_stretch_in_random_order(self):
        orders = set()
        for seed in range(20):
            u = draw_sigmas(4, 1.0, torch.Generator().manual_seed(seed))
            assert sorted((u * 4).long().tolist()) == [0, 1, 2, 3]
            orders.add(tuple((u * 4).long().tolist()))
        assert len(orders) > 10

    def test_equal_those_of_the_scheduler_that_renders(self, backbone):
        """Wan's flow shift, as diffusers' UniPC applies it."""
        u = draw_sigmas(50, 1.0, torch.Generator().manual_seed(0))
        drawn = draw_sigmas(50, 5.0, torch.Generator().manual_seed(0))
        scheduler = backbone.pipeline(5.0).scheduler
        scheduler.set_timesteps(1000)
        table = scheduler.sigmas[:-1].flip(0)
        assert torch.allclose(table[(u * 1000).round().long() - 1].float(), drawn, atol=5e-3)

    def test_follow_the_generator(self):
        assert torch.equal(self.draw(3.0, 5), self.draw(3.0, 5))
        other = draw_sigmas(5, 3.0, torch.Generator().manual_seed(1))
        assert not torch.equal(self.draw(3.0, 5), other)


def test_what_weighs_nothing_has_no_say():
    random = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(2, 2, 4, 3, 5, 5, generator=random)
    weights = torch.ones(2, 1, 3, 5, 5)
    for loss in (denoising_loss, motion_loss):
        assert loss(predicted, target, weights).item() == pytest.approx(loss(predicted, target).item(), rel=1e-5)
    weights[0, :, :, :2] = weights[1, :, 1, 3] = 0
    seen = [loss(predicted, target, weights) for loss in (denoising_loss, motion_loss)]
    changed = torch.where(weights > 0, predicted, 100.0)
    assert [loss(changed, target, weights) for loss in (denoising_loss, motion_loss)] == seen
    expected = (predicted - target).square()[0, :, :, 2:].mean()
    assert denoising_loss(predicted[:1], target[:1], weights[:1]).item() == pytest.approx(expected.item(), rel=1e-5)
    assert denoising_loss(predicted, target, 0 * weights) == 0  # nothing to learn is no fault
