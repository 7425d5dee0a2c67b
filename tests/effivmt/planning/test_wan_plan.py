"""Plans at the true sizes of Wan 2.1, counted from the configs as they are on the hub."""

import pytest
import torch

from effivmt.method.memory_choices import MemoryChoices
from effivmt.params_file import load_params
from effivmt.planning.choosing import GIB, choose, make_plan
from effivmt.planning.models import autoencoder_without_data, image_encoder_without_data, transformer_without_data
from effivmt.planning.stages import StageCounter
from wan_shapes import WAN_1_3B, WAN_14B, WAN_14B_I2V, write_configs


def counter_of(tmp_path, preset: str, size: dict[str, int]) -> StageCounter:
    return StageCounter(write_configs(tmp_path / preset, size), load_params(preset))


def test_stage_3_of_1_3b(tmp_path):
    """The weights alone are 2.65 GiB; a step at 7,800 tokens takes as much again. The host holds LoRAs alone."""
    counter = counter_of(tmp_path, "wan2.1-1.3b", WAN_1_3B)
    cost = counter.cost("temporal", MemoryChoices(temporal_checkpointing=True))
    assert 3 < cost.device_bytes / GIB < 8 and cost.host_bytes / GIB == pytest.approx(0.83, abs=0.02)
    assert 1e14 < cost.flops / 2000 < 2e14


@pytest.mark.slow
def test_1_3b_fits_into_12_gb(tmp_path):
    """The text encoder alone takes 10.6 GiB, so it goes to the host; nothing that changes the result is needed."""
    counter = counter_of(tmp_path, "wan2.1-1.3b", WAN_1_3B)
    choices = choose(counter, 12)
    assert choices.text_on_host and not (choices.float8_base or choices.offloaded_blocks)
    plan = make_plan(counter, choices, 12)
    assert not plan.misfits
    costs = {cost.stage: cost for cost in plan.costs}
    assert costs["text"].host_bytes / GIB == pytest.approx(10.8, abs=0.3)


@pytest.mark.slow
def test_14b_fits_into_24_gb(tmp_path):
    counter = counter_of(tmp_path, "wan2.1-14b", WAN_14B)
    choices = choose(counter, 24)
    plan = make_plan(counter, choices, 24)
    assert choices.float8_base and choices.temporal_checkpointing and not plan.misfits
    (tuned,) = [cost for cost in plan.costs if cost.stage == "temporal"]
    assert tuned.disk_bytes > 3 * GIB and tuned.host_bytes / GIB == pytest.approx(26.7, abs=0.5)  # whole, for 8 bits
    assert not choose(counter, 80).float8_base


def test_8_bits_halve_the_weights_of_14b(tmp_path):
    folder = counter_of(tmp_path, "wan2.1-14b", WAN_14B).folder
    sizes = [
        sum(p.nbytes for p in transformer_without_data(folder, torch.bfloat16, float8=float8).parameters()) / GIB
        for float8 in (False, True)
    ]
    assert sizes == [pytest.approx(26.7, abs=0.5), pytest.approx(13.6, abs=0.6)]


def test_the_image_encoder_of_i2v_14b_is_held_while_it_renders(tmp_path):
    """CLIP ViT-H/14 in float32: 632 million weights, 2.53 GB."""
    folder = write_configs(tmp_path / "i2v", WAN_14B_I2V)
    params = load_params("wan2.1-14b")
    size = params.ingest.model_copy(update={"num_frames": 5, "height": 64, "width": 96})
    counter = StageCounter(folder, params.model_copy(update={"ingest": size}))
    held = [
        sum(parameter.nbytes for parameter in model.parameters())
        for model in (image_encoder_without_data(folder), autoencoder_without_data(folder))
    ]
    assert held[0] / 1e9 == pytest.approx(2.53, abs=0.02)
    forward = counter._forward(MemoryChoices()).peak
    assert counter.cost("render", MemoryChoices()).device_bytes >= forward + sum(held)
    assert counter._image(tiled=False).peak > sum(held)
    assert counter.cost("heads", MemoryChoices()).flops > counter._image(tiled=False).flops > 1e11
