"""The region of an adapter folder: exact, listed, and refused when damaged or odd."""

import json

import pytest
import torch
from adapting import Tuned
from safetensors.torch import save_file

from effivmt.errors import AdapterError
from effivmt.method.adapter import load_adapter, save_adapter
from effivmt.method.adapter_manifest import read_facts
from effivmt.method.adapter_merge import Part, merge_adapters
from effivmt.store.digests import sha256_file

REGION = torch.rand((1, 1, 3, 4, 4), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tuned: Tuned, tmp_path):
    """The adapter folder, with a region."""
    made = load_adapter(tuned.folder)
    facts = {name: made.facts[name] for name in ("clip", "backbone")}
    save_adapter(tmp_path / "a", made.spatial, made.temporal, made.heads, facts=facts, region=REGION)
    return tmp_path / "a"


def test_it_is_one_more_file_of_the_same_format(tuned, folder) -> None:
    adapter, without = load_adapter(folder), load_adapter(tuned.folder)
    assert torch.equal(adapter.region, REGION) and without.region is None
    facts, before = read_facts(folder), read_facts(tuned.folder)
    assert facts["files"].pop("region.safetensors") == sha256_file(folder / "region.safetensors")
    assert facts == before and facts["version"] == 1


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"region": REGION + 1}, "its region has values outside of 0 to 1"),
        ({"region": REGION * float("nan")}, "its region has values outside of 0 to 1"),
        ({"region": REGION.half()}, r"holds region as F16 .1, 1, 3, 4, 4.; expected region as F32 .1, 1, F, h, w."),
        ({"region": REGION[0]}, r"holds region as F32 .1, 3, 4, 4.; expected region"),
        ({"region": REGION[:, :, :0]}, "holds region as F32 .1, 1, 0, 4, 4.; expected region"),
        ({"region": REGION, "more": REGION.clone()}, "holds .*more as F32 .*; expected region"),
        ({"other": REGION}, "holds other as F32 .*; expected region"),
        ({}, "holds nothing; expected region"),
    ],
)
def test_an_odd_one_is_refused_in_one_line(folder, tensors, said) -> None:
    save_file(tensors, folder / "region.safetensors")
    facts = json.loads((folder / "adapter.json").read_text())
    facts["files"]["region.safetensors"] = sha256_file(folder / "region.safetensors")
    (folder / "adapter.json").write_text(json.dumps(facts))
    with pytest.raises(AdapterError, match=said) as caught:
        load_adapter(folder)
    assert "\n" not in str(caught.value)


def test_a_damaged_or_missing_one_is_refused(folder) -> None:
    path = folder / "region.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AdapterError, match=r"region\.safetensors is damaged"):
        load_adapter(folder)
    path.unlink()
    with pytest.raises(AdapterError, match=r"region\.safetensors is missing"):
        load_adapter(folder)


def test_a_sum_has_none(folder, tuned) -> None:
    parts = [load_adapter(folder), load_adapter(tuned.folder)]
    assert merge_adapters([Part(one, 1.0, 1.0) for one in parts]).region is None
