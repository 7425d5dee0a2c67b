"""Tuning learns, in its own LoRA of its own heads alone."""

import numpy as np
import pytest
import torch
from staged import FRAMES, MAPS, SAMPLING, Stage, bytes_of, head_map, state_of

from effivmt.errors import EffiVMTError
from effivmt.method import losses
from effivmt.method.adapter import fused, to_stock_layout
from effivmt.method.batches import sparse_batch
from effivmt.method.dual_path import add_lora, dual_path, lora_parameters
from effivmt.method.rope import time_positions_of
from effivmt.method.seeding import generator
from effivmt.method.tuning import SHARE


class TestAddLora:
    def test_of_zero_leaves_the_output_unchanged(self, transformer, clip):
        inputs = (clip["dense"], torch.tensor([500.0]), clip["caption"])
        with dual_path(transformer, head_map()), torch.no_grad():
            before = transformer(*inputs).sample
            weights = add_lora(transformer, "temporal", 3, torch.Generator().manual_seed(0))
            assert torch.equal(transformer(*inputs).sample, before)
            for name, weight in weights.items():
                assert (weight == 0).all() == name.endswith("lora_B")
                weight.fill_(0.1)
            assert (transformer(*inputs).sample - before).abs().max() > 1e-3
            trained = lora_parameters(transformer)
            assert all(parameter.requires_grad and (parameter == 0.1).all() for parameter in trained)
            assert sum(p.numel() for p in trained) == sum(weight.numel() for weight in weights.values())
        assert not any(parameter.requires_grad for parameter in transformer.parameters())

    @pytest.mark.parametrize("name", MAPS)
    def test_covers_the_four_projections_of_its_branch(self, transformer, name):
        with dual_path(transformer, head_map(MAPS[name])):
            weights = add_lora(transformer, "spatial", 3, torch.Generator().manual_seed(0))
        layers = [layer for layer in range(2) if not MAPS[name][layer].all()]
        assert set(weights) == {
            f"blocks.{layer}.attn1.{projection}.spatial.{side}"
            for layer in layers
            for projection in ("to_q", "to_k", "to_v", "to_out.0")
            for side in ("lora_A", "lora_B")
        }
        for layer in layers:
            channels = 12 * int((~MAPS[name][layer]).sum())
            assert weights[f"blocks.{layer}.attn1.to_q.spatial.lora_A"].shape == (3, 48)
            assert weights[f"blocks.{layer}.attn1.to_q.spatial.lora_B"].shape == (channels, 3)
            assert weights[f"blocks.{layer}.attn1.to_out.0.spatial.lora_A"].shape == (3, channels)
            assert weights[f"blocks.{layer}.attn1.to_out.0.spatial.lora_B"].shape == (48, 3)

    def test_draws_as_peft_does(self, transformer):
        """Kaiming uniform with a = sqrt(5): uniform within 1 / sqrt(in)."""
        with dual_path(transformer, head_map()):
            weights = add_lora(transformer, "spatial", 32, torch.Generator().manual_seed(0))
        drawn = torch.cat([w.detach().flatten() for n, w in weights.items() if n.endswith("to_q.spatial.lora_A")])
        bound = 48**-0.5
        assert drawn.abs().max() <= bound and drawn.abs().max() > 0.98 * bound
        assert drawn.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


class TestLearning:
    def loss_on_fixed_draws(self, transformer, stage) -> torch.Tensor:
        """Denoising and motion loss over the same 32 noises, at the time positions that the stage sees."""
        totals = torch.zeros(2)
        with torch.no_grad(), time_positions_of(transformer) as rope:
            for draw in range(32):
                random = generator(123, "fixed", draw)
                if stage.name == "spatial":
                    latents = stage.clip["single"][draw % 5][None]
                else:
                    phase = generator(123, "phase", draw)
                    sample = sparse_batch(
                        stage.clip["dense"], SAMPLING, "aligned", num_frames=FRAMES, batch=1, random=phase
                    )
                    latents, rope.positions = sample.latents, sample.positions
                noise = torch.randn(latents.shape, generator=random)
                sigmas = losses.draw_sigmas(1, 3.0, random)
                noised = losses.add_noise(latents, noise, sigmas)
                predicted = transformer(noised, 1000 * sigmas, stage.clip["caption"]).sample
                target = losses.velocity(latents, noise)
                totals += torch.stack([losses.denoising_loss(predicted, target), losses.motion_loss(predicted, target)])
        return totals / 32

    def test_loss_falls(self, transformer, stage):
        before = self.loss_on_fixed_draws(transformer, stage)
        tuned = stage(transformer, rank=8, steps=60, batch=4, learning_rate=2e-2)
        weights = to_stock_layout(tuned.weights, head_map())
        with fused(transformer, {stage.name: (weights, 1.0)}):
            after = self.loss_on_fixed_draws(transformer, stage)
        print(f"{stage.name}: denoising, motion loss {before.tolist()} -> {after.tolist()}")
        assert after[0] < 0.93 * before[0]
        assert np.mean(tuned.losses["denoising"][-15:]) < 0.95 * np.mean(tuned.losses["denoising"][:5])
        if stage.name == "temporal":
            assert after[1] < before[1]
            assert len(tuned.losses["motion"]) == 60

    def test_motion_weight_lowers_the_motion_loss(self, transformer, clip, tmp_path):
        ends = []
        for weight in (0.0, 3.0):
            stage = Stage("temporal", clip, tmp_path / f"{weight}")
            tuned = stage(transformer, rank=8, steps=40, batch=4, learning_rate=2e-2, motion_weight=weight)
            ends.append(np.mean(tuned.losses["motion"][-15:]))
        assert ends[1] < ends[0]

    def test_damaged_inputs_are_an_error_and_leave_nothing(self, transformer, stage):
        before = state_of(transformer)
        stage.clip = {**stage.clip, "caption": stage.clip["caption"] * float("nan")}
        with pytest.raises(EffiVMTError, match=rf"{stage.name} tuning diverged: its loss is nan at step 1 of 4"):
            stage(transformer)
        assert state_of(transformer) == before and not stage.checkpoint.exists() and not stage.notices


class TestDivergence:
    """At a rate of 1e5 the random transformer overflows in four steps, at an eighth of it not."""

    @pytest.mark.parametrize("save_every", [1, 100])
    def test_goes_on_at_half_the_rate(self, transformer, stage, save_every):
        tuned = stage(transformer, learning_rate=1e5, save_every=save_every)
        notice = stage.notices[0]
        assert notice.startswith(f"{stage.name} tuning diverged: its loss is nan ") and notice.endswith(
            "half the rate, 50000"
        )
        assert len(tuned.losses[SHARE]) == len(tuned.losses["denoising"]) == 4 and tuned.losses[SHARE][
            -1
        ] == 0.5 ** len(stage.notices)
        assert all(weight.isfinite().all() for weight in tuned.weights.values())

    @pytest.mark.parametrize("killed_at", [2, 4, 5])
    def test_killed_around_it_ends_with_the_same_bytes(self, transformer, stage, killed_at):
        whole, calls = stage(transformer, learning_rate=1e5), []
        stage.checkpoint.unlink()

        def die(done: int, total: int) -> None:
            calls.append(done)
            if len(calls) == killed_at:
                raise KeyboardInterrupt

        try:
            stage(transformer, progress=die, learning_rate=1e5)
        except KeyboardInterrupt:
            resumed = stage(transformer, learning_rate=1e5)
            assert bytes_of(resumed) == bytes_of(whole) and resumed.losses == whole.losses
        assert len(calls) >= min(killed_at, 4)

    def test_the_weights_after_the_last_update_count(self, transformer, stage):
        before = state_of(transformer)
        fault = (
            rf"{stage.name} tuning .* nan after the last of 1 steps, even at 0\.125 of {stage.name}\.learning_rate=1e"
        )
        with pytest.raises(EffiVMTError, match=fault):
            stage(transformer, learning_rate=1e30, steps=1)
        assert len(stage.notices) == 3 and state_of(transformer) == before

    def test_a_run_that_never_diverged_has_no_share(self, transformer, stage):
        assert SHARE not in stage(transformer).losses and not stage.notices


class TestIsolation:
    def test_a_stage_changes_its_own_lora_alone(self, transformer, stage):
        """Bit for bit, after every step."""
        before, seen = state_of(transformer)[1], []

        def look(done: int, total: int) -> None:
            assert state_of(transformer)[1] == before
            seen.append(done)

        tuned = stage(transformer, progress=look)
        assert seen == [1, 2, 3, 4]
        assert len(tuned.weights) == 2 * 4 * 2
        assert all(f".{stage.name}." in name and weight.any() for name, weight in tuned.weights.items())

    def test_exported_rows_and_columns_of_the_other_kind_are_zero(self, transformer, stage):
        tuned, found = stage(transformer), head_map()
        for name, weight in to_stock_layout(tuned.weights, found).items():
            layer = int(name.split(".")[2])
            own = np.repeat(found.is_temporal[layer] == (stage.name == "temporal"), 12)
            if name.endswith("to_out.0.lora_A.weight"):
                assert not weight[:, ~own].any() and weight[:, own].any(0).all()
            elif name.endswith("lora_B.weight") and "to_out" not in name:
                assert not weight[~own].any() and weight[own].any(1).all()

    @pytest.mark.parametrize("name", list(MAPS)[1:])
    def test_a_layer_all_of_one_kind_works(self, transformer, stage, name):
        before = state_of(transformer)
        tuned = stage(transformer, head_map(MAPS[name]))
        has_first_layer = any(weight.startswith("blocks.0.") for weight in tuned.weights)
        assert has_first_layer == (name == f"first layer all {stage.name}")
        assert all(weight.isfinite().all() for weight in tuned.weights.values())
        assert state_of(transformer) == before

    def test_no_head_of_a_kind_is_a_clear_error(self, transformer, stage):
        before = state_of(transformer)
        nothing = head_map(np.full((2, 4), stage.name == "spatial"))
        with pytest.raises(EffiVMTError, match=rf"no head of this backbone is {stage.name} .*heads\.alpha"):
            stage(transformer, nothing)
        assert state_of(transformer) == before
