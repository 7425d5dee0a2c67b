"""The adapter folder: exact, deterministic, refused when damaged or made for another backbone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from adapting import RENDER, SIZE
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from safetensors.torch import save as to_bytes

from effivmt.errors import AdapterError
from effivmt.method.adapter import check_fits, load_adapter, save_adapter, to_stock_layout
from effivmt.method.adapter_manifest import read_facts
from effivmt.method.heads import BRANCHES
from effivmt.method.rendering import render
from effivmt.store.digests import sha256_file


def edit_facts(folder: Path, change) -> None:
    """Changes adapter.json, and brings its digests up to date, as a maker of another adapter would have."""
    facts = json.loads((folder / "adapter.json").read_text())
    facts["files"] = {name: sha256_file(folder / name) for name in facts["files"]}
    change(facts)
    (folder / "adapter.json").write_text(json.dumps(facts))


class TestFolder:
    def test_lists_every_file_with_its_digest(self, tuned):
        facts = read_facts(tuned.folder)
        names = {path.name for path in tuned.folder.iterdir()} - {"adapter.json"}
        assert names == set(facts["files"])
        assert names == {*(f"{name}.safetensors" for name in (*BRANCHES, "comfyui")), "heads.parquet", "README.md"}
        assert all(facts["files"][name] == sha256_file(tuned.folder / name) for name in names)
        assert facts["clip"] == {"caption": "a clip"}
        assert "a clip" in (tuned.folder / "README.md").read_text()

    def test_round_trip_is_exact(self, tuned):
        adapter = load_adapter(tuned.folder)
        for branch in BRANCHES:
            assert to_bytes(getattr(adapter, branch)) == to_bytes(to_stock_layout(tuned.split[branch], tuned.heads))
        assert np.array_equal(adapter.heads.is_temporal, tuned.heads.is_temporal)
        assert np.array_equal(adapter.heads.spatial, tuned.heads.spatial)

    def test_saving_is_deterministic(self, tuned, tmp_path):
        adapter = load_adapter(tuned.folder)
        facts = {name: adapter.facts[name] for name in ("clip", "backbone")}
        save_adapter(tmp_path, adapter.spatial, adapter.temporal, adapter.heads, facts=facts)
        for path in tuned.folder.iterdir():
            assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name

    @pytest.mark.parametrize(
        "name", ["spatial.safetensors", "temporal.safetensors", "comfyui.safetensors", "heads.parquet", "README.md"]
    )
    def test_a_damaged_or_missing_file_is_an_error(self, broken, name):
        content = bytearray((broken / name).read_bytes())
        content[-1] ^= 1
        (broken / name).write_bytes(content)
        with pytest.raises(AdapterError, match=rf"{name} is damaged .*pull or make it again"):
            load_adapter(broken)
        (broken / name).unlink()
        with pytest.raises(AdapterError, match=rf"{name} is missing"):
            load_adapter(broken)

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": "effivmt-adapter", "version": 2}'])
    def test_a_damaged_adapter_json_is_an_error(self, broken, content):
        (broken / "adapter.json").write_text(content)
        with pytest.raises(AdapterError, match=str(broken)):
            load_adapter(broken)

    def test_no_adapter_folder_is_an_error(self, tmp_path, broken):
        with pytest.raises(AdapterError, match=r"is no adapter folder: adapter\.json is missing"):
            load_adapter(tmp_path / "absent")
        edit_facts(broken, lambda facts: facts["files"].pop("heads.parquet"))
        with pytest.raises(AdapterError, match="does not list the adapter's files"):
            load_adapter(broken)

    @pytest.mark.parametrize(
        "made_for", ["wan", [], {"id": "wan"}, {"digest": "5f"}, {"id": "", "digest": "", "commit": 1}]
    )
    def test_a_backbone_without_id_and_digest_is_an_error(self, broken, made_for):
        edit_facts(broken, lambda facts: facts.update(backbone=made_for))
        with pytest.raises(AdapterError, match=r"adapter\.json does not say its backbone; pull or make it again"):
            load_adapter(broken)

    def test_weights_that_are_no_safetensors_are_an_error(self, broken):
        torch.save({"a": torch.zeros(1)}, broken / "spatial.safetensors")
        edit_facts(broken, lambda facts: None)
        with pytest.raises(AdapterError, match=r"spatial\.safetensors cannot be read"):
            load_adapter(broken)

    @pytest.mark.parametrize("branch", BRANCHES)
    @pytest.mark.parametrize("zero", ["lora_A", "lora_B", "lora"])
    def test_a_branch_that_changes_nothing_is_an_error(self, broken, branch, zero):
        """B alone being zero, as before the first step, is the silent no-op that one must not ship."""
        path = broken / f"{branch}.safetensors"
        save_file({name: w * (zero not in name) for name, w in load_file(path).items()}, path)
        edit_facts(broken, lambda facts: None)
        with pytest.raises(AdapterError, match=rf"{branch} branch is zero"):
            load_adapter(broken)

    def test_weights_that_are_not_finite_are_an_error(self, broken):
        path = broken / "temporal.safetensors"
        weights = load_file(path)
        next(iter(weights.values()))[0, 0] = float("nan")
        save_file(weights, path)
        edit_facts(broken, lambda facts: None)
        with pytest.raises(AdapterError, match="temporal branch is not finite"):
            load_adapter(broken)


class TestCheckFits:
    def test_accepts_its_own_backbone(self, backbone, tuned):
        check_fits(load_adapter(tuned.folder), backbone.transformer, backbone.found.facts)

    def test_another_digest_is_named_beside_this_one(self, backbone, tuned):
        message = rf"made for backbone wan-random \(digest {backbone.digest[:12]}\) but .* digest ffffffffffff;"
        with pytest.raises(AdapterError, match=message):
            check_fits(load_adapter(tuned.folder), backbone.transformer, backbone.found.facts | {"digest": "f" * 64})

    def test_only_the_transformers_weights_count_where_the_adapter_knows_their_digest(self, backbone, broken):
        """Another text encoder, autoencoder or commit of the hub is no other transformer."""
        edit_facts(broken, lambda facts: facts.update(backbone=dict(backbone.found.facts)))
        adapter, other = load_adapter(broken), backbone.found.facts | {"digest": "f" * 64, "commit": "1" * 40}
        check_fits(adapter, backbone.transformer, other)
        with pytest.raises(
            AdapterError, match=r"transformer digest \w{12}\) but this backbone has transformer digest ee"
        ):
            check_fits(adapter, backbone.transformer, other | {"transformer": "e" * 64})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"num_attention_heads": 3}, r"\(48, 3\).* but the backbone's layer needs \(36, R\) and \(R, 36\)"),
            ({"num_layers": 1}, r"LoRA of blocks\.1\.attn1\.to_\S+ but the backbone has no such linear layer"),
        ],
    )
    def test_another_shape_names_both_sides(self, backbone, tuned, change, message):
        config = {**backbone.transformer.config, **change}
        other = WanTransformer3DModel.from_config({k: v for k, v in config.items() if not k.startswith("_")})
        adapter = load_adapter(tuned.folder)
        adapter.spatial.clear()
        with pytest.raises(AdapterError, match=message):
            check_fits(adapter, other)

    @pytest.mark.parametrize(
        ("name", "weight"),
        [
            ("transformer.blocks.0.attn1.to_q.alpha", torch.ones(())),
            ("transformer.blocks.0.attn1.norm_q.lora_A.weight", torch.ones(2, 48)),
            ("blocks.0.attn1.to_q.lora_A.weight", torch.ones(2, 48)),
            ("transformer.blocks.0.attn2.to_q.lora_B.weight", torch.ones(48, 2)),
        ],
    )
    def test_unknown_names_and_lone_halves_are_errors(self, backbone, tuned, name, weight):
        adapter = load_adapter(tuned.folder)
        adapter.temporal[name] = weight
        with pytest.raises(AdapterError, match=r"blocks\.0\.attn"):
            check_fits(adapter, backbone.transformer)

    def test_halves_of_different_rank_are_an_error(self, backbone, tuned):
        adapter = load_adapter(tuned.folder)
        name = "transformer.blocks.0.attn1.to_q.lora_A.weight"
        adapter.temporal[name] = adapter.temporal[name][:1]
        with pytest.raises(AdapterError, match=r"has B \(48, 3\) and A \(1, 48\)"):
            check_fits(adapter, backbone.transformer)

    def test_rendering_refuses_another_backbones_adapter(self, backbone, tuned, prompts, broken):
        edit_facts(broken, lambda facts: facts["backbone"].update(id="other", digest="e" * 64))
        with pytest.raises(AdapterError, match="made for backbone other"):
            render(backbone, load_adapter(broken), *prompts, params=RENDER, size=SIZE, seed=0)
