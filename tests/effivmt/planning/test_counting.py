"""What is counted without data is what a real run allocates, by torch's own profiler, within 15 %."""

from pathlib import Path

import numpy as np
import pytest
import torch
from allocating import allocated

from effivmt.config import Params
from effivmt.method.adapter import fused
from effivmt.method.heads import HeadMap
from effivmt.method.memory_choices import MemoryChoices
from effivmt.method.tuning import tune_spatial, tune_temporal
from effivmt.planning.counting import Counter
from effivmt.planning.models import autoencoder_without_data, transformer_without_data
from effivmt.planning.stages import StageCounter
from wan_shapes import SMALL, SMALL_TEXT, SMALL_VAE, write_configs

PARAMS = Params.model_validate(
    {
        "ingest": {"num_frames": 17, "height": 256, "width": 256},
        "sampling": {"frames": 9},
        "spatial": {"rank": 8, "steps": 3, "batch": 4},
        "temporal": {"rank": 8, "steps": 3, "batch": 2},
        "render": {"steps": 2},
        "backbone": {"max_sequence_length": 32},
    }
)
SHAPE = (4, 5, 32, 32)


@pytest.fixture(scope="module")
def counter(tmp_path_factory) -> StageCounter:
    folder = tmp_path_factory.mktemp("configs") / "small"
    return StageCounter(write_configs(folder, SMALL, SMALL_VAE, SMALL_TEXT), PARAMS)


def with_weights(model: torch.nn.Module) -> torch.nn.Module:
    """A model without data, filled with small numbers."""
    filled = model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*filled.parameters(), *filled.buffers()):
            tensor.fill_(0.01)
    return filled


def half_temporal() -> HeadMap:
    scores = np.zeros((3, 4))
    return HeadMap(scores, scores, np.arange(4)[None].repeat(3, 0) % 2 == 1)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("stage", ["spatial", "temporal"])
def test_a_tuning_step(counter: StageCounter, tmp_path: Path, stage: str, checkpointing: bool) -> None:
    choices = MemoryChoices(spatial_checkpointing=checkpointing, temporal_checkpointing=checkpointing)
    planned = counter.cost(stage, choices).device_bytes
    transformer = with_weights(transformer_without_data(counter.folder, torch.float32))
    caption, common = torch.zeros(1, 32, 64), {"seed": 0, "clip": "", "checkpoint": tmp_path / "none"}
    params = getattr(PARAMS, stage).model_copy(update={"gradient_checkpointing": checkpointing})

    def run() -> None:
        if stage == "spatial":
            tune_spatial(transformer, half_temporal(), torch.zeros(17, 4, 1, 32, 32), caption, params=params, **common)
            return
        looks = {
            f"transformer.blocks.{layer}.attn1.{name}.{side}.weight": torch.zeros(shape)
            for layer in range(3)
            for name in ("to_q", "to_k", "to_v", "to_out.0")
            for side, shape in (("lora_A", (8, 128)), ("lora_B", (128, 8)))
        }
        with fused(transformer, {"spatial": (looks, 1.0)}):
            tune_temporal(
                transformer, half_temporal(), torch.zeros(1, *SHAPE), caption, params=params,
                sampling=PARAMS.sampling, num_frames=17, **common,
            )  # fmt: skip

    assert planned == pytest.approx(allocated(run, transformer), rel=0.15)


def test_checkpointing_takes_less_and_computes_more(counter: StageCounter) -> None:
    plain = counter.cost("temporal", MemoryChoices())
    saving = counter.cost("temporal", MemoryChoices(temporal_checkpointing=True))
    assert saving.device_bytes < plain.device_bytes and saving.flops > 1.2 * plain.flops
    waiting = counter.cost("temporal", MemoryChoices(temporal_checkpointing=True, activations_on_host=True))
    inputs = 3 * 2 * 3 * 16 * 16 * 128 * 4  # layers, batch, latent frames, tokens of a frame, channels, bytes
    assert waiting.device_bytes == pytest.approx(saving.device_bytes - inputs, rel=0.1)
    assert waiting.flops == saving.flops


@pytest.mark.parametrize("stage", ["heads", "render"])
def test_of_offloaded_blocks_two_are_on_the_gpu(counter: StageCounter, stage: str) -> None:
    """The transformer has three."""
    block = transformer_without_data(counter.folder, torch.float32).blocks[0]
    plain = counter.cost(stage, MemoryChoices(tiled_decoding=True))
    offloaded = counter.cost(stage, MemoryChoices(tiled_decoding=True, offloaded_blocks=True))
    expected = sum(parameter.nbytes for parameter in block.parameters())
    assert plain.device_bytes - offloaded.device_bytes == pytest.approx(expected, rel=0.05)


def test_heads_by_the_error_of_their_output_compute_more(counter: StageCounter) -> None:
    heads = PARAMS.heads.model_copy(update={"criterion": "output_error"})
    other = StageCounter(counter.folder, PARAMS.model_copy(update={"heads": heads}))
    assert other.cost("heads", MemoryChoices()).flops > counter.cost("heads", MemoryChoices()).flops


@pytest.mark.parametrize("tiled", [False, True])
def test_a_decoded_video(counter: StageCounter, tiled: bool) -> None:
    """By the tensors that are alive: convolutions on a processor allocate columns of their own, on a GPU they do not.

    256 pixels a side are one tile of diffusers' size, 272 are four.
    """
    latents, peaks = torch.zeros(1, 4, 2, 34, 34), []
    for real in (False, True):
        vae = autoencoder_without_data(counter.folder)
        vae = with_weights(vae) if real else vae
        if tiled:
            vae.enable_tiling()
        with torch.no_grad(), Counter("cpu" if real else "meta") as count:
            count.add([*vae.parameters(), *vae.buffers()])
            vae.decode(latents.to("cpu" if real else "meta"))
        peaks.append(count.peak)
    assert peaks[0] == pytest.approx(peaks[1], rel=0.15)


def test_ingest_decodes_what_it_has_encoded(counter: StageCounter) -> None:
    """It says how well the autoencoder gives the clip back."""
    decoding = counter._decoding(MemoryChoices())
    cost, tiled = (counter.cost("ingest", MemoryChoices(tiled_decoding=on)) for on in (False, True))
    assert cost.device_bytes == max(decoding.peak, counter._encoding(17).peak) >= tiled.device_bytes
    assert cost.flops > decoding.flops


def test_counting_of_real_tensors_and_flops() -> None:
    with Counter("cpu") as counter:
        a = torch.ones(100, 50)
        b = a @ torch.ones(50, 10)
        del a
    assert counter.flops == 2 * 100 * 50 * 10
    assert counter.bytes == b.nbytes and counter.peak == 4 * (100 * 50 + 50 * 10 + 100 * 10)
