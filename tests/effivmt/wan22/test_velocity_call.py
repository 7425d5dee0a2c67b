"""The one call that predicts a velocity asks a transformer as the stock pipelines do, at the noise levels it is for."""

import pytest
import torch
from diffusers import WanPipeline

from effivmt.config import BackboneParams
from effivmt.method.backbone import Backbone
from effivmt.method.experts import EVERY_LEVEL, ONLY, Expert
from effivmt.method.losses import draw_sigmas
from effivmt.method.prediction import predict_velocity


def load(folder) -> Backbone:
    return Backbone(BackboneParams(path=str(folder), max_sequence_length=16))


@pytest.fixture
def calls():
    """Records every call of a transformer, as (inputs by name, output)."""

    class Calls(list):
        def watch(self, transformer) -> None:
            def after(_module, _args, kwargs, output) -> None:
                self.append((kwargs, output[0]))

            transformer.register_forward_hook(after, with_kwargs=True)

    return Calls()


def sample(folder, calls, *, names: tuple[str, ...], steps: int, size: int) -> WanPipeline:
    """Runs the stock pipeline without guidance and records the calls of its transformers."""
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    for name in names:
        calls.watch(getattr(pipeline, name))
    text = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(3))
    pipeline(
        prompt_embeds=text, height=size, width=size, num_frames=9, num_inference_steps=steps, guidance_scale=1.0,
        generator=torch.Generator().manual_seed(0), output_type="latent",
    )  # fmt: skip
    return pipeline


def test_ti2v_gets_a_timestep_for_each_token(ti2v_folder, calls):
    sample(ti2v_folder, calls, names=("transformer",), steps=2, size=64)
    backbone = load(ti2v_folder)
    own = type(calls)()
    own.watch(backbone.transformer)
    for given, stock in calls:
        assert given["timestep"].shape == (1, 3 * 2 * 2)
        with torch.no_grad():
            velocity = predict_velocity(
                backbone.transformer,
                given["hidden_states"],
                given["timestep"][:, 0],
                given["encoder_hidden_states"],
                expert=backbone.experts[0],
            )
        assert torch.equal(velocity, stock)
    assert len(calls) == len(own) == 2


def test_an_only_transformer_gets_one_timestep(backbone, calls):
    latents, text = torch.randn(2, 4, 3, 4, 4), torch.randn(2, 16, 16)
    with torch.no_grad():
        plain = backbone.transformer(latents, torch.tensor([900.0, 100.0]), text).sample
        assert torch.equal(predict_velocity(backbone.transformer, latents, torch.tensor([900.0, 100.0]), text), plain)
        spread = predict_velocity(
            backbone.transformer, latents, torch.tensor([900.0, 100.0]), text, expert=Expert(expand_timesteps=True)
        )
    assert torch.allclose(spread, plain, atol=1e-5)  # alike timesteps for all tokens are one timestep


def test_experts_take_the_levels_at_which_sampling_asks_them(a14b_folder, calls):
    pipeline = sample(a14b_folder, calls, names=("transformer",), steps=40, size=32)
    high, low = load(a14b_folder).experts
    levels = (pipeline.scheduler.timesteps / 1000).tolist()
    assert [high.takes(level) for level in levels].count(True) == len(calls) not in (0, 40)
    assert all(high.takes(level) != low.takes(level) for level in levels)


@pytest.mark.parametrize("shift", [1.0, 2.7, 15.0])
def test_noise_levels_are_those_of_the_whole_where_they_are_of_one_side(shift):
    """An expert's levels are spread on its side as they are there for a transformer that has both sides."""
    high, low = (0.875, 1.0), (0.0, 0.875)
    seeds = [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]
    count = 40_000
    whole = draw_sigmas(count, shift, seeds[0])
    for noise, seed in zip((high, low), seeds[1:], strict=True):
        drawn = draw_sigmas(count, shift, seed, noise)
        assert noise[0] <= drawn.min() and drawn.max() <= noise[1]
        inside = whole[(whole >= noise[0]) & (whole < noise[1])]
        quantiles = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
        assert torch.allclose(drawn.quantile(quantiles), inside.quantile(quantiles), atol=0.005)


def test_a_batch_of_one_side_sees_all_of_it():
    drawn = draw_sigmas(8, 1.0, torch.Generator().manual_seed(0), (0.875, 1.0))
    assert ((drawn - 0.875) * 64).long().sort().values.tolist() == list(range(8))


def test_every_level_is_drawn_as_before():
    for shift in (1.0, 2.7, 15.0):
        for seed in range(50):
            old, new = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
            u = (torch.randperm(7, generator=old) + torch.rand(7, generator=old)) / 7
            assert torch.equal(draw_sigmas(7, shift, new, EVERY_LEVEL), shift * u / (1 + (shift - 1) * u))
    assert ONLY.noise == EVERY_LEVEL
