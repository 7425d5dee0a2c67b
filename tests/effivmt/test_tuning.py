"""Both stages learn, each touches its own branch alone, a killed run ends as one never killed, and nothing is left."""

import copy
import logging
import warnings

import numpy as np
import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from safetensors.torch import save as to_bytes

from effivmt import objectives
from effivmt.adapter import fused, to_stock_layout
from effivmt.branches import branch_parameters, dual_path
from effivmt.config import SamplingParams, SpatialParams, TemporalParams
from effivmt.errors import EffiVMTError
from effivmt.heads import HeadMap
from effivmt.positions import sampled_indices, time_positions_of
from effivmt.seeding import generator
from effivmt.tuning import Tuned, add_lora, sparse_sample, tune_spatial, tune_temporal

FRAMES = 17  # pixel frames of the dense clip: 5 latent frames
MAPS = {
    "mixed": np.array([[1, 0, 1, 0], [0, 1, 1, 0]], dtype=bool),
    "first layer all spatial": np.array([[0, 0, 0, 0], [0, 1, 1, 0]], dtype=bool),
    "first layer all temporal": np.array([[1, 1, 1, 1], [0, 1, 1, 0]], dtype=bool),
}
SAMPLING = SamplingParams(mode="latent", frames=9, phases=2)
SIZE = {"rank": 2, "steps": 4, "batch": 2, "save_every": 1, "learning_rate": 1e-2}


def head_map(is_temporal: np.ndarray = MAPS["mixed"]) -> HeadMap:
    return HeadMap(np.zeros(is_temporal.shape), np.zeros(is_temporal.shape), is_temporal)


@pytest.fixture
def transformer(backbone) -> WanTransformer3DModel:
    return copy.deepcopy(backbone.transformer)


@pytest.fixture(scope="module")
def clip() -> dict[str, torch.Tensor]:
    """Latents of a clip: a pattern that moves over a still ground; its frames alone; a caption."""
    random = torch.Generator().manual_seed(0)
    ground, pattern = torch.randn(2, 4, 1, 4, 4, generator=random)
    dense = torch.cat([ground + 2 * pattern.roll(shift, dims=3) for shift in range(5)], dim=1)[None]
    return {
        "dense": dense,
        "single": dense[0].transpose(0, 1)[:, :, None].contiguous(),
        "caption": torch.randn(1, 16, 16, generator=random),
    }


class Stage:
    """Runs one of the two stages with the settings they share."""

    def __init__(self, name: str, clip: dict[str, torch.Tensor], checkpoint) -> None:
        self.name, self.clip, self.checkpoint = name, clip, checkpoint

    def __call__(self, transformer, heads=None, progress=None, sampling=SAMPLING, **changes) -> Tuned:
        settings = {**SIZE, **changes}
        common = {"seed": 0, "clip": "clip", "checkpoint": self.checkpoint, "progress": progress}
        heads = heads or head_map()
        if self.name == "spatial":
            params = SpatialParams(**settings)
            return tune_spatial(transformer, heads, self.clip["single"], self.clip["caption"], params, **common)
        params = TemporalParams(**settings)
        latents, caption = self.clip["dense"], self.clip["caption"]
        return tune_temporal(transformer, heads, latents, caption, params, sampling, FRAMES, **common)


@pytest.fixture(params=["spatial", "temporal"])
def stage(request, clip, tmp_path) -> Stage:
    return Stage(request.param, clip, tmp_path / "state.safetensors")


def bytes_of(tuned: Tuned) -> bytes:
    return to_bytes(tuned.weights)


def state_of(transformer: WanTransformer3DModel) -> tuple[list, bytes, set[str]]:
    """Modules by identity, the bytes of the weights, and the names of the instance's attributes."""
    modules = [(name, id(module)) for name, module in transformer.named_modules()]
    return modules, to_bytes(transformer.state_dict()), set(vars(transformer))


class TestAddLora:
    def test_of_zero_leaves_the_output_unchanged(self, transformer, clip):
        inputs = (clip["dense"], torch.tensor([500.0]), clip["caption"])
        with dual_path(transformer, head_map()), torch.no_grad():
            before = transformer(*inputs).sample
            weights = add_lora(transformer, "temporal", 3, torch.Generator().manual_seed(0))
            assert torch.equal(transformer(*inputs).sample, before)
            for name, weight in weights.items():
                assert (weight == 0).all() == name.endswith("lora_B") and weight.requires_grad
                weight.fill_(0.1)
            assert (transformer(*inputs).sample - before).abs().max() > 1e-3
            trained = {id(p) for p in transformer.parameters() if p.requires_grad}
        assert trained == {id(weight) for weight in weights.values()}

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
                    sample = sparse_sample(stage.clip["dense"], SAMPLING, "aligned", FRAMES, draw % 2)
                    latents, rope.positions = sample.latents, sample.positions
                noise = torch.randn(latents.shape, generator=random)
                sigmas = objectives.draw_sigmas(1, 3.0, random)
                noised = objectives.add_noise(latents, noise, sigmas)
                predicted = transformer(noised, 1000 * sigmas, stage.clip["caption"]).sample
                target = objectives.velocity(latents, noise)
                totals += torch.stack(
                    [objectives.denoising_loss(predicted, target), objectives.motion_loss(predicted, target)]
                )
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

    def test_divergence_is_an_error_and_leaves_nothing(self, transformer, stage):
        before = state_of(transformer)
        stage.clip = {**stage.clip, "caption": stage.clip["caption"] * float("nan")}
        with pytest.raises(EffiVMTError, match=rf"{stage.name} tuning diverged: its loss is nan at step 1 of 4"):
            stage(transformer)
        assert state_of(transformer) == before and not stage.checkpoint.exists()


class TestIsolation:
    def test_a_stage_changes_its_own_lora_alone(self, transformer, stage):
        """Bit for bit, in split form, after every step."""
        with dual_path(transformer, head_map()):
            expected = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
            assert len(branch_parameters(transformer, "spatial")) == 2 * 8
            assert len(branch_parameters(transformer, "temporal")) == 2 * 7  # the spatial half holds the bias of to_out
        other = "temporal" if stage.name == "spatial" else "spatial"
        seen, loras = [], set()

        def look(done: int, total: int) -> None:
            for name, tensor in transformer.state_dict().items():
                if "lora_" in name:
                    loras.add(name)
                else:
                    assert torch.equal(tensor, expected[name.replace(".base_layer", "")]), name
            seen.append(done)

        tuned = stage(transformer, progress=look)
        assert seen == [1, 2, 3, 4]
        assert not any(f".{other}." in name for name in loras | set(tuned.weights))
        assert len(loras) == len(tuned.weights) == 2 * 4 * 2
        assert all(f".{stage.name}." in name for name in loras)
        assert all(weight.any() for weight in tuned.weights.values())

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
            transformer, head_map(), stage.clip["single"], stage.clip["caption"], SpatialParams(**SIZE),
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
        sigmas = objectives.draw_sigmas(batch, 3.0, random)
        losses = []
        with torch.no_grad(), time_positions_of(transformer) as rope:
            for i in range(batch):
                rope.positions = starts[i].double()[None]
                noised = (1 - sigmas[i]) * latents[i] + sigmas[i] * noise[i]
                predicted = transformer(noised[None], 1000 * sigmas[i : i + 1], clip["caption"]).sample
                target = (noise[i] - latents[i])[None]
                losses.append([((predicted - target) ** 2).mean(), objectives.motion_loss(predicted, target)])
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
        assert not hasattr(transformer, "peft_config")
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

    def test_dense_is_everything_at_stock_positions(self, dense):
        sample = sparse_sample(dense, SamplingParams(mode="dense"), "paper", 81, 2)
        assert torch.equal(sample.latents, dense) and sample.positions.tolist() == [list(range(21))]

    def test_latent_takes_latent_frames_where_they_stand(self, dense):
        sampling = SamplingParams(mode="latent", frames=17, phases=4)
        for phase in range(4):
            sample = sparse_sample(dense, sampling, "aligned", 81, phase)
            assert sample.latents.flatten().tolist() == sample.positions[0].tolist()
            assert sample.latents.flatten().tolist() == [phase + 4 * i for i in range(5)]
        paper = sparse_sample(dense, sampling, "paper", 81, 1).positions[0].tolist()
        assert paper == pytest.approx([0, 4.2, 8.4, 12.6, 16.8])
        assert sparse_sample(dense, sampling, "none", 81, 1).positions[0].tolist() == [0, 1, 2, 3, 4]

    def test_pixel_takes_the_phase_that_was_encoded(self):
        encoded = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 2, 5, 3, 3)
        sampling = SamplingParams(mode="pixel", frames=17, phases=4)
        for phase in range(4):
            sample = sparse_sample(encoded, sampling, "aligned", 81, phase)
            assert sample.latents.shape == (1, 2, 5, 3, 3) and (sample.latents == phase).all()
            assert sample.positions.tolist() == [[i / 4 for i in sampled_indices(81, 17, phase / 4)[::4].tolist()]]
        spacing = sparse_sample(encoded, sampling, "paper", 81, 0).positions[0].diff().tolist()
        assert spacing == pytest.approx([81 / 17] * 4)
