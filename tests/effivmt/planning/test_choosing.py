"""Choices are the cheapest that fit; what cannot fit is told with the setting that helps; the store remembers them."""

import json

import pytest

from effivmt.config import BackboneParams, Params
from effivmt.errors import DamageError
from effivmt.method.memory_choices import MemoryChoices
from effivmt.pipeline.stages.spatial_tuning import checkpointed, tuning_settings
from effivmt.pipeline.workspace import LoadedBackbone, Workspace
from effivmt.planning.choosing import GIB, choose, make_plan, usable
from effivmt.planning.memory import choose_memory
from effivmt.planning.stages import StageCounter
from effivmt.store.store import Store
from wan_shapes import SMALL, SMALL_TEXT, SMALL_VAE, write_configs

PARAMS = Params.model_validate(
    {
        "ingest": {"num_frames": 17, "height": 64, "width": 64},
        "sampling": {"frames": 9},
        "spatial": {"rank": 8, "batch": 16},
        "temporal": {"rank": 8, "batch": 16},
        "backbone": {"dtype": "bfloat16"},
    }
)


@pytest.fixture(scope="module")
def counter(tmp_path_factory) -> StageCounter:
    folder = tmp_path_factory.mktemp("configs") / "small"
    return StageCounter(write_configs(folder, SMALL, SMALL_VAE, SMALL_TEXT), PARAMS)


def gigabytes_for(needed: int) -> float:
    """A GPU on which tensors of this many bytes just fit."""
    return (needed + 4096) / GIB / 0.95 + 0.6 / 0.95


def test_what_fits_chooses_nothing(counter):
    choices = choose(counter, 12)
    assert choices == MemoryChoices() and choices.describe() == "nothing"
    assert make_plan(counter, choices, 12).misfits == ()


def test_a_tuning_that_is_too_large_is_checkpointed(counter):
    saving = counter.cost("temporal", MemoryChoices(temporal_checkpointing=True)).device_bytes
    others = [counter.cost(stage, MemoryChoices()).device_bytes for stage in ("ingest", "text", "heads", "render")]
    choices = choose(counter, gigabytes_for(max(saving, *others)))
    assert choices.temporal_checkpointing and not choices.float8_base


def test_what_cannot_fit_is_told_with_what_helps(counter):
    choices = MemoryChoices(temporal_checkpointing=True, activations_on_host=True)
    needed = counter.cost("temporal", choices).device_bytes
    misfits = {it.stage: it for it in make_plan(counter, choices, gigabytes_for(needed - 100_000)).misfits}
    assert misfits["temporal"].needed == needed and misfits["temporal"].remedy == "temporal.batch=1"


def test_without_choices_checkpointing_is_what_helps(counter):
    """As on a processor, where nothing is chosen."""
    needed = counter.cost("temporal", MemoryChoices(temporal_checkpointing=True)).device_bytes
    misfits = make_plan(counter, MemoryChoices(), gigabytes_for(needed)).misfits
    assert [it.remedy for it in misfits if it.stage == "temporal"] == ["temporal.gradient_checkpointing=true"]


def test_usable_memory_leaves_room():
    assert usable(24) / GIB == pytest.approx(22.2)


class TestMemory:
    def test_auto_chooses_nothing_on_the_processor(self, counter, tmp_path):
        params = PARAMS.model_copy(update={"backbone": BackboneParams(device="cpu")})
        assert choose_memory(params, counter.folder, tmp_path / "memory.json") == MemoryChoices()
        assert not (tmp_path / "memory.json").exists()

    def test_choices_are_remembered(self, counter, tmp_path):
        memo = tmp_path / "memory.json"
        params = PARAMS.model_copy(update={"backbone": BackboneParams(memory=12)})
        assert choose_memory(params, counter.folder, memo) == MemoryChoices()
        document = json.loads(memo.read_text())
        (known,) = document["digests"]
        assert choose_memory(params, counter.folder, memo) == MemoryChoices()
        memo.write_text(memo.read_text().replace(known, "0" * 64))
        with pytest.raises(DamageError):
            choose_memory(params, counter.folder, memo)

    @pytest.mark.parametrize("memory", [13, "large"])
    def test_only_known_sizes(self, memory):
        with pytest.raises(ValueError, match="memory"):
            BackboneParams(memory=memory)


class TestStages:
    def workspace(self, params, tmp_path, memory: MemoryChoices) -> Workspace:
        return Workspace(Store(tmp_path / "store"), params, loaded=LoadedBackbone(memory=memory))

    def test_keys_name_what_changes_the_result_alone(self, params, tmp_path):
        exact = self.workspace(params, tmp_path, MemoryChoices(spatial_checkpointing=True, offloaded_blocks=True))
        assert (exact.precision, exact.adapted_precision) == ("float32", "float32")
        assert tuning_settings(exact, params.spatial)["gradient_checkpointing"] is False
        coarse = self.workspace(params, tmp_path, MemoryChoices(float8_base=True))
        assert coarse.precision == "float32, weights in 8 bits"

    def test_a_stage_is_checkpointed_where_params_or_memory_ask(self, params):
        asked = params.spatial.model_copy(update={"gradient_checkpointing": True})
        assert not checkpointed(params.spatial, False).gradient_checkpointing
        assert checkpointed(params.spatial, True).gradient_checkpointing
        assert checkpointed(asked, False).gradient_checkpointing
