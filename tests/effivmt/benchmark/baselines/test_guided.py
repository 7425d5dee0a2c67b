"""Guided sampling is the stock sampling plus the guide, which is called where it should be and whose work lasts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler

from effivmt.errors import EffiVMTError
from effivmt.method.guided import SamplingStep, generate, guided_steps, optimise
from effivmt.method.rendering import render


class TestGenerate:
    @pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
    def test_without_guidance_it_is_the_stock_rendering(self, guided_request, backbone, prompts, guidance_scale):
        params = guided_request.render.model_copy(update={"guidance_scale": guidance_scale})

        def never(_latents, _step):
            raise AssertionError("called without guided steps")

        found = generate(replace(guided_request, render=params, seed=3), never, 0.0)
        expected = render(backbone, None, *prompts, params=params, size=guided_request.size, seed=3)
        assert found.shape == (9, 32, 48, 3) and found.dtype == np.uint8
        assert np.abs(found.astype(int) - expected).max() <= 1

    def test_the_guide_sees_the_first_steps_from_the_noise_on(self, guided_request, backbone, render_params):
        seen, done = [], []

        def guide(latents, step):
            seen.append((latents, step))
            return latents

        generate(replace(guided_request, seed=3, progress=lambda *counts: done.append(counts)), guide, 0.4)
        scheduler = backbone.pipeline(render_params.flow_shift).scheduler
        scheduler.set_timesteps(5)
        assert done == [(step, 5) for step in range(1, 6)]
        assert [(step.index, step.count) for _, step in seen] == [(0, 2), (1, 2)]
        assert [step.timestep.tolist() for _, step in seen] == [[t] for t in scheduler.timesteps[:2].tolist()]
        assert [step.sigma for _, step in seen] == scheduler.sigmas[:2].tolist()
        noise = torch.randn(1, 4, 3, 4, 6, generator=torch.Generator().manual_seed(3))
        assert torch.equal(seen[0][0], noise) and all(torch.equal(step.noise, noise) for _, step in seen)
        assert not torch.equal(seen[1][0], noise)

    def test_a_step_starts_where_the_guide_left_the_latents(self, guided_request, monkeypatch):
        """Stock UniPC would start guided step 1 and 2 from a sample that it makes anew from the step before."""
        given, started, left = [], [], []
        stock = UniPCMultistepScheduler.step

        def step(scheduler, output, timestep, sample, **options):
            result = stock(scheduler, output, timestep, sample, **options)
            given.append(sample)
            started.append(scheduler.last_sample)
            return result

        def guide(latents, _step):
            left.append(latents + torch.linspace(-1, 1, 3).view(1, 1, 3, 1, 1))
            return left[-1]

        monkeypatch.setattr(UniPCMultistepScheduler, "step", step)
        generate(replace(guided_request, seed=3), guide, 0.6)
        assert len(left) == 3 and len(started) == 5
        assert all(torch.equal(a, b) for a, b in zip(started, left, strict=False))
        assert not any(torch.equal(started[i], given[i]) for i in (3, 4))

    def test_a_reference_of_another_size_is_a_clear_error(self, guided_request, reference):
        with pytest.raises(EffiVMTError, match=r"\(1, 4, 2, 4, 6\).*\(1, 4, 3, 4, 6\).*ingest"):
            generate(replace(guided_request, reference=reference[:, :, :2]), lambda z, _: z, 0.2)


class TestSchedule:
    @pytest.mark.parametrize(
        ("share", "steps", "count"), [(0.2, 50, 10), (0.4, 50, 20), (0.2, 20, 4), (0.2, 2, 1), (0.0, 50, 0), (1, 7, 7)]
    )
    def test_share_of_the_steps(self, share, steps, count):
        assert guided_steps(share, steps) == count

    def test_rates_go_linearly_from_the_first_step_to_the_last(self):
        steps = [SamplingStep(index, 3, torch.zeros(1), 0.5, torch.zeros(1)) for index in range(3)]
        assert [step.interpolate(0.002, 0.001) for step in steps] == pytest.approx([0.002, 0.0015, 0.001])
        assert SamplingStep(0, 1, torch.zeros(1), 0.5, torch.zeros(1)).interpolate(0.002, 0.001) == 0.002


class TestOptimise:
    def test_descends_as_adam_does_and_touches_nothing_else(self):
        target, other = torch.tensor([3.0, -2.0]), torch.ones(2, requires_grad=True)
        start = torch.zeros(2)
        once = optimise(start, lambda x: ((x - target) * other).square().sum(), 1, 0.1)
        assert once.tolist() == pytest.approx([0.1, -0.1])
        far = optimise(start, lambda x: ((x - target) * other).square().sum(), 300, 0.1)
        assert torch.allclose(far, target, atol=1e-2)
        assert other.grad is None and not start.any() and not far.requires_grad

    def test_a_loss_that_is_not_finite_is_a_clear_error(self):
        with pytest.raises(EffiVMTError, match=r"nan at step 1 of 2; lower"):
            optimise(torch.zeros(2), lambda x: x.sum() * float("nan"), 2, 0.1)
