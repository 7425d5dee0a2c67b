"""MotionDirector: phi, LoRAs that are added and frozen as they should be, learning, and a run that can be resumed."""

import copy

import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import save as to_bytes

from effivmt.benchmark.baselines import motion_director
from effivmt.benchmark.baselines.motion_director import (
    MotionDirectorParams,
    added,
    debias,
    draw_lora,
    frozen,
    temporal_loss,
    tune,
)
from effivmt.errors import EffiVMTError
from effivmt.method import losses
from effivmt.method.adapter import fused
from effivmt.method.seeding import generator

PARAMS = MotionDirectorParams(rank=2, steps=4, batch=2, learning_rate=1e-2, save_every=1)
NAMES = {
    f"transformer.blocks.{layer}.attn1.{projection}.{side}.weight"
    for layer in range(2)
    for projection in ("to_q", "to_k", "to_v", "to_out.0")
    for side in ("lora_A", "lora_B")
}


@pytest.fixture
def transformer(backbone) -> WanTransformer3DModel:
    return copy.deepcopy(backbone.transformer)


@pytest.fixture
def run(transformer, reference, prompts, tmp_path):
    """Tunes on the reference; `checkpoint` of it is the file where its state is kept."""
    single = reference[0].transpose(0, 1)[:, :, None]
    checkpoint = tmp_path / "state.safetensors"

    def run(seed=0, progress=None, gradient_checkpointing=False, **changes):
        params = PARAMS.model_copy(update=changes)
        caption = prompts[0][None]
        options = {"params": params, "seed": seed, "clip": "clip", "checkpoint": checkpoint, "progress": progress}
        options["gradient_checkpointing"] = gradient_checkpointing
        return tune(transformer, reference, single, caption, **options)

    run.checkpoint = checkpoint
    return run


@pytest.fixture
def velocities() -> torch.Tensor:
    """Two velocities (2, 3, 5, 2, 2)."""
    return torch.randn(2, 2, 3, 5, 2, 2, generator=torch.Generator().manual_seed(0))


def bytes_of(loras: dict) -> dict[str, bytes]:
    return {name: to_bytes(lora) for name, lora in loras.items()}


class TestPhi:
    def test_without_beta_it_is_the_identity(self, velocities):
        assert torch.equal(debias(velocities[0], 0.0, 2), velocities[0])

    @pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
    def test_what_frames_share_shrinks_and_their_differences_grow(self, velocities, beta):
        x, scale = velocities[0], (beta**2 + 1) ** 0.5
        still = x[:, :, :1].expand_as(x)
        assert torch.allclose(debias(still, beta, 3), (scale - beta) * still, atol=1e-5)
        found = debias(x, beta, 3)
        assert torch.allclose(found[:, :, 3], (scale - beta) * x[:, :, 3], atol=1e-5)
        assert torch.allclose(found.diff(dim=2), scale * x.diff(dim=2), atol=1e-5)

    def test_loss_is_zero_at_the_target_and_follows_its_formula(self, velocities):
        predicted, target = velocities
        assert temporal_loss(target, target, 1.0, 2) == 0
        error = predicted - target
        debiased = 2**0.5 * error - error[:, :, [2]]
        expected = error.square().mean() + debiased.square().mean()
        assert temporal_loss(predicted, target, 1.0, 2).item() == pytest.approx(expected.item(), rel=1e-5)
        assert temporal_loss(target + 1, target, 1.0, 2).item() == pytest.approx(1 + (2**0.5 - 1) ** 2, rel=1e-5)


class TestAdded:
    @pytest.fixture
    def loras(self, transformer) -> list[dict[str, torch.Tensor]]:
        random = torch.Generator().manual_seed(0)
        loras = [draw_lora(transformer, 2, random) for _ in range(2)]
        with torch.no_grad():
            for lora in loras:
                for name, weight in lora.items():
                    if "lora_B" in name:
                        weight.copy_(0.3 * torch.randn(weight.shape, generator=random))
        return loras

    def test_equals_merging_into_the_weights(self, transformer, reference, prompts, loras):
        inputs = (reference, torch.tensor([500.0]), prompts[0][None])
        with torch.no_grad():
            stock = transformer(*inputs).sample
            with added(transformer, *loras):
                found = transformer(*inputs).sample
            with fused(transformer, {"spatial": (loras[0], 1.0), "temporal": (loras[1], 1.0)}):
                assert torch.allclose(transformer(*inputs).sample, found, atol=1e-5)
            assert (found - stock).abs().max() > 1e-2
            assert torch.equal(transformer(*inputs).sample, stock)

    def test_only_what_is_not_frozen_gets_a_gradient(self, transformer, reference, prompts, loras):
        inputs = (reference, torch.tensor([500.0]), prompts[0][None])
        with added(transformer, frozen(loras[0]), loras[1]):
            transformer(*inputs).sample.square().sum().backward()
        assert set(loras[1]) == NAMES and all(weight.grad.any() for weight in loras[1].values())
        assert all(weight.grad is None for weight in (*loras[0].values(), *transformer.parameters()))

    def test_draws_nothing_that_changes_the_output(self, transformer):
        lora = draw_lora(transformer, 3, torch.Generator().manual_seed(0))
        drawn = torch.cat([weight.flatten() for name, weight in lora.items() if "lora_A" in name])
        assert 0.98 * 48**-0.5 < drawn.abs().max() <= 48**-0.5
        assert not any(weight.any() for name, weight in lora.items() if "lora_B" in name)


class TestTune:
    def test_gives_stock_loras_and_leaves_the_transformer(self, transformer, run):
        before = to_bytes(transformer.state_dict())
        loras = run()
        assert set(loras) == {"spatial", "temporal"}
        for lora in loras.values():
            assert set(lora) == NAMES and all(weight.any() and not weight.requires_grad for weight in lora.values())
            assert {tuple(lora[name].shape) for name in NAMES if "lora_A" in name} == {(2, 48)}
        assert to_bytes(transformer.state_dict()) == before
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in transformer.modules())

    def test_both_losses_fall(self, transformer, reference, prompts, run):
        loras = run(rank=8, steps=25, batch=4, learning_rate=5e-2, save_every=100)

        def mean_losses(loras: list) -> list[float]:
            totals = torch.zeros(2)
            for draw in range(16):
                random = generator(7, "fixed", draw)
                noise = torch.randn(reference.shape, generator=random)
                sigma = losses.draw_sigmas(1, 3.0, random)
                target = losses.velocity(reference, noise)
                noised = losses.add_noise(reference, noise, sigma)
                with torch.no_grad(), added(transformer, *loras[:1]):
                    frame = transformer(noised[:, :, :1], 1000 * sigma, prompts[0][None]).sample
                with torch.no_grad(), added(transformer, *loras):
                    video = transformer(noised, 1000 * sigma, prompts[0][None]).sample
                totals[0] += losses.denoising_loss(frame, target[:, :, :1])
                totals[1] += temporal_loss(video, target, 1.0, draw % 3)
            return totals.tolist()

        untuned, spatial_alone = mean_losses([]), mean_losses([loras["spatial"]])
        tuned = mean_losses([loras["spatial"], loras["temporal"]])
        assert tuned[0] < 0.9 * untuned[0]
        assert tuned[1] < 0.95 * spatial_alone[1] < 0.95 * untuned[1]

    def test_the_spatial_lora_never_hears_of_the_temporal_loss(self, run, monkeypatch):
        both = run(weight_decay=0.0)
        run.checkpoint.unlink()
        monkeypatch.setattr(motion_director, "temporal_loss", lambda predicted, *_: 0 * predicted.sum())
        alone = run(weight_decay=0.0)
        assert to_bytes(alone["spatial"]) == to_bytes(both["spatial"])
        assert not any(weight.any() for name, weight in alone["temporal"].items() if "lora_B" in name)

    def test_the_temporal_step_sees_the_spatial_lora_frozen(self, run, monkeypatch):
        calls, stock = [], motion_director.added

        def watching(transformer, *loras):
            calls.append([{weight.requires_grad for weight in lora.values()} for lora in loras])
            return stock(transformer, *loras)

        monkeypatch.setattr(motion_director, "added", watching)
        run(steps=2)
        assert calls == [[{True}], [{False}, {True}]] * 2

    def test_every_step_draws_afresh(self, run, monkeypatch):
        drawn, stock = [], losses.draw_sigmas

        def watching(*args):
            drawn.append(stock(*args))
            return drawn[-1]

        monkeypatch.setattr(losses, "draw_sigmas", watching)
        run()
        assert len(torch.cat(drawn).unique()) == 2 * 2 * 4

    @pytest.mark.parametrize(("killed_at", "save_every"), [(1, 1), (3, 1), (3, 2), (1, 2)])
    def test_a_killed_run_ends_with_the_same_bytes(self, run, killed_at, save_every):
        whole = run()
        run.checkpoint.unlink()

        def die(done: int, _total: int) -> None:
            if done == killed_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(progress=die, save_every=save_every)
        steps = []
        resumed = run(progress=lambda done, total: steps.append((done, total)), save_every=save_every)
        assert steps == [(step, 4) for step in range(killed_at // save_every * save_every + 1, 5)]
        assert bytes_of(resumed) == bytes_of(whole)

    def test_the_global_seed_does_not_matter_and_the_own_one_does(self, run):
        results = []
        for global_seed, seed in ((0, 0), (1, 0), (1, 1)):
            torch.manual_seed(global_seed)
            run.checkpoint.unlink(missing_ok=True)
            results.append(bytes_of(run(seed=seed)))
        assert results[0] == results[1] != results[2]

    def test_a_loss_that_is_not_finite_is_a_clear_error(self, run):
        with pytest.raises(EffiVMTError, match=r"spatial loss is nan .* lower its learning_rate"):
            run(learning_rate=1e30, save_every=100)


def test_gradient_checkpointing_gives_the_same_bytes(run, transformer):
    plain = run(save_every=100)
    again = run(save_every=100, gradient_checkpointing=True)
    assert {name: to_bytes(lora) for name, lora in plain.items()} == {
        name: to_bytes(lora) for name, lora in again.items()
    }
    assert not transformer.is_gradient_checkpointing
