"""Tuning draws the same samples whatever happens, and leaves the transformer as it was."""

import logging
import warnings

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import save as to_bytes
from staged import SIZE, Stage, bytes_of, head_map, state_of

from effivmt.config import SamplingParams, SpatialParams
from effivmt.method.adapter import to_stock_layout
from effivmt.method.batches import SparseBatch, sparse_batch
from effivmt.method.losses import draw_sigmas, motion_loss
from effivmt.method.rope import sampled_indices, time_positions_of
from effivmt.method.seeding import generator
from effivmt.method.tuning import tune_spatial


class TestCountedRandomness:
    @pytest.mark.parametrize("save_every", [1, 2])
    @pytest.mark.parametrize("killed_at", [1, 2, 3, 4])
    def test_a_killed_run_ends_with_the_same_bytes(self, transformer, stage, killed_at, save_every):
        whole = stage(transformer, save_every=save_every)
        stage.checkpoint.unlink()
        before = state_of(transformer)

        def die(done: int, total: int) -> None:
            if done == killed_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            stage(transformer, progress=die, save_every=save_every)
        assert state_of(transformer) == before
        steps = []
        resumed = stage(transformer, progress=lambda done, total: steps.append(done), save_every=save_every)
        first = min(killed_at, 3) // save_every * save_every + 1
        assert steps == list(range(first, 5))
        assert bytes_of(resumed) == bytes_of(whole)
        assert resumed.losses == whole.losses and len(whole.losses["denoising"]) == 4

    def test_the_global_seed_does_not_matter_and_the_own_one_does(self, transformer, stage):
        results = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            stage.checkpoint.unlink(missing_ok=True)
            results.append(bytes_of(stage(transformer)))
        assert results[0] == results[1]
        stage.checkpoint.unlink()
        other = tune_spatial(
            transformer, head_map(), stage.clip["single"], stage.clip["caption"], params=SpatialParams(**SIZE),
            seed=1, clip="clip", checkpoint=stage.checkpoint,
        )  # fmt: skip
        assert to_bytes(other.weights) != results[0]

    def test_first_step_equals_separate_forward_passes(self, transformer, clip, tmp_path):
        """The LoRA of the first step is zero, so its losses are those of the stock transformer, sample by sample."""
        stage, batch = Stage("temporal", clip, tmp_path / "state"), 6
        tuned = stage(transformer, steps=1, batch=batch)
        random = generator(0, "temporal", "clip", 0)
        phases = torch.randint(2, (batch,), generator=random).tolist()
        assert set(phases) == {0, 1}
        starts = [sampled_indices(5, 3, phase / 2) for phase in phases]
        latents = torch.cat([clip["dense"][:, :, indices] for indices in starts])
        noise = torch.randn(latents.shape, generator=random)
        sigmas = draw_sigmas(batch, 3.0, random)
        losses = []
        with torch.no_grad(), time_positions_of(transformer) as rope:
            for i in range(batch):
                rope.positions = starts[i].double()[None]
                noised = (1 - sigmas[i]) * latents[i] + sigmas[i] * noise[i]
                predicted = transformer(noised[None], 1000 * sigmas[i : i + 1], clip["caption"]).sample
                target = (noise[i] - latents[i])[None]
                losses.append([((predicted - target) ** 2).mean(), motion_loss(predicted, target)])
        expected = torch.tensor(losses).mean(0)
        assert tuned.losses["denoising"][0] == pytest.approx(expected[0].item(), rel=1e-5)
        assert tuned.losses["motion"][0] == pytest.approx(expected[1].item(), rel=1e-5)

    def test_gradient_checkpointing_gives_the_same_run(self, transformer, stage):
        before = state_of(transformer)
        plain = stage(transformer)
        stage.checkpoint.unlink()
        again = stage(transformer, gradient_checkpointing=True)
        for name in plain.losses:
            assert again.losses[name] == pytest.approx(plain.losses[name], rel=1e-5)
        for name, weight in plain.weights.items():
            assert torch.allclose(again.weights[name], weight, atol=1e-4)
        assert state_of(transformer) == before and not transformer.is_gradient_checkpointing


class TestAfterwards:
    def test_the_transformer_is_stock(self, transformer, stage):
        before = state_of(transformer)
        stage(transformer)
        assert state_of(transformer) == before
        assert not any(parameter.requires_grad for parameter in transformer.parameters())

    def test_a_pipeline_loads_loras_into_it_without_a_warning(self, transformer, stage, caplog):
        weights = to_stock_layout(stage(transformer).weights, head_map())
        pipeline = WanPipeline(tokenizer=None, text_encoder=None, vae=None, scheduler=None, transformer=transformer)
        library = logging.getLogger("diffusers")
        library.addHandler(caplog.handler)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pipeline.load_lora_weights(weights, adapter_name="again")
        library.removeHandler(caplog.handler)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert transformer.active_adapters() == ["again"]


class TestSparseSample:
    @pytest.fixture
    def dense(self) -> torch.Tensor:
        return torch.arange(21.0).view(1, 1, 21, 1, 1)

    @staticmethod
    def drawn(latents, sampling, rope="aligned", *, num_frames=81, draws=40, batch=1) -> list[SparseBatch]:
        random = torch.Generator().manual_seed(0)
        return [
            sparse_batch(latents, sampling, rope, num_frames=num_frames, batch=batch, random=random)
            for _ in range(draws)
        ]

    def test_dense_is_everything_at_stock_positions(self, dense):
        (sample,) = self.drawn(dense, SamplingParams(mode="dense"), "paper", draws=1)
        assert torch.equal(sample.latents, dense) and sample.positions.tolist() == [list(range(21))]

    def test_anchored_keeps_both_ends_and_draws_the_rest(self, dense):
        sampling = SamplingParams(mode="anchored", frames=17)
        seen = []
        for sample in self.drawn(dense, sampling, draws=400):
            (places,) = sample.positions.tolist()
            assert sample.latents.flatten().tolist() == places == sorted(places)
            assert places[0] == 0 and places[-1] == 20 and len(set(places)) == 5
            seen += places[1:-1]
        counts = np.bincount(np.array(seen, int), minlength=21)
        assert (np.abs(counts[1:20] - 400 * 3 / 19) < 35).all()  # every frame between is as likely

    @pytest.mark.parametrize(("frames", "batch"), [(17, 4), (17, 6), (17, 9), (81, 2), (41, 3)])
    def test_anchored_samples_of_a_batch_share_as_few_frames_as_they_can(self, dense, frames, batch):
        kept = (frames - 1) // 4 + 1
        for drawn in self.drawn(dense, SamplingParams(mode="anchored", frames=frames), batch=batch, draws=10):
            assert drawn.latents.flatten(1).tolist() == drawn.positions.tolist()
            counts = np.bincount(drawn.positions[:, 1:-1].flatten().long().numpy(), minlength=21)[1:20]
            assert counts.sum() == batch * (kept - 2)
            assert counts.max() <= -(-batch // (19 // (kept - 2)))  # whole deals of the frames between the ends

    @pytest.mark.parametrize(("rope", "expected"), [("paper", [0, 4.2, 8.4, 12.6, 16.8]), ("none", [0, 1, 2, 3, 4])])
    def test_anchored_frames_at_other_positions(self, dense, rope, expected):
        for sample in self.drawn(dense, SamplingParams(mode="anchored", frames=17), rope):
            assert sample.positions[0].tolist() == pytest.approx(expected)

    def test_a_clip_of_fewer_latent_frames_is_taken_whole(self, dense):
        for mode in ("anchored", "latent"):
            for count in (2, 4, 5):
                (sample,) = self.drawn(dense[:, :, :count], SamplingParams(mode=mode, frames=17), num_frames=5, draws=1)
                assert sample.positions.tolist() == [list(range(count))]

    def test_latent_takes_latent_frames_where_they_stand(self, dense):
        sampling = SamplingParams(mode="latent", frames=17, phases=4)
        found = [sample.positions[0].tolist() for sample in self.drawn(dense, sampling)]
        assert [sample.latents.flatten().tolist() for sample in self.drawn(dense, sampling)] == found
        assert sorted(set(map(tuple, found))) == [tuple(phase + 4 * i for i in range(5)) for phase in range(4)]
        for sample in self.drawn(dense, sampling, "paper"):
            assert sample.positions[0].tolist() == pytest.approx([0, 4.2, 8.4, 12.6, 16.8])
        for sample in self.drawn(dense, sampling, "none"):
            assert sample.positions[0].tolist() == [0, 1, 2, 3, 4]

    def test_pixel_takes_the_phase_that_was_encoded(self):
        encoded = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 2, 5, 3, 3)
        sampling = SamplingParams(mode="pixel", frames=17, phases=4)
        phases = set()
        for sample in self.drawn(encoded, sampling):
            phase = int(sample.latents[0, 0, 0, 0, 0])
            phases.add(phase)
            assert sample.latents.shape == (1, 2, 5, 3, 3) and (sample.latents == phase).all()
            assert sample.positions.tolist() == [[i / 4 for i in sampled_indices(81, 17, phase / 4)[::4].tolist()]]
        assert phases == {0, 1, 2, 3}
        for sample in self.drawn(encoded, sampling, "paper"):
            assert sample.positions[0].diff().tolist() == pytest.approx([81 / 17] * 4)
