"""Folders of Wan 2.2: what is taken, what is refused and why, and which settings fit."""

import json
import shutil
from pathlib import Path

import pytest

from effivmt.config import BackboneParams, Params
from effivmt.errors import BackboneError, ParamsError
from effivmt.method.backbone_folder import BackboneFolder, check_settings, find_backbone, tuned_experts
from effivmt.method.experts import HIGH, LOW
from effivmt.params_file import load_params


def find(folder: Path) -> BackboneFolder:
    return find_backbone(BackboneParams(path=str(folder)))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class TestTwoTransformers:
    def test_are_experts_of_the_two_sides_of_the_boundary(self, a14b_folder, backbone):
        found = find(a14b_folder)
        high, low = found.shape.experts
        assert (high.component, high.name, high.noise) == ("transformer", HIGH, (0.875, 1.0))
        assert (low.component, low.name, low.noise) == ("transformer_2", LOW, (0.0, 0.875))
        assert [high.takes(sigma) for sigma in (0.8, 0.875, 1.0)] == [False, True, True]
        assert [low.takes(sigma) for sigma in (0.0, 0.8, 0.875)] == [True, True, False]
        assert found.facts["transformer"] == backbone.found.facts["transformer"] != found.facts["transformer_2"]
        assert found.digest != backbone.digest

    def test_the_digest_follows_the_second_and_the_boundary(self, folder):
        first = find(folder)
        edit_json(folder / "model_index.json", boundary_ratio=0.9)
        assert find(folder).digest != first.digest and find(folder).facts["transformer"] == first.facts["transformer"]
        edit_json(folder / "model_index.json", boundary_ratio=0.875)
        assert find(folder).digest == first.digest
        (path,) = (folder / "transformer_2").glob("*.safetensors")
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        changed = find(folder)
        assert changed.digest != first.digest and changed.facts["transformer_2"] != first.facts["transformer_2"]

    @pytest.mark.parametrize(
        ("file", "changes", "message"),
        [
            ("model_index.json", {"boundary_ratio": None}, "has a second transformer but no boundary_ratio"),
            ("model_index.json", {"transformer_2": [None, None]}, "boundary_ratio 0.875 but no second"),
            ("model_index.json", {"boundary_ratio": 875}, "has boundary_ratio 875; expected a noise level bet"),
            ("model_index.json", {"expand_timesteps": "yes"}, "has expand_timesteps 'yes'; expected true or false"),
            ("model_index.json", {"_class_name": "WanImageToVideoPipeline"}, "Image.* but has a transformer that ta"),
            ("model_index.json", {"image_encoder": ["transformers", "CLIPVisionModel"]}, "with an image_encoder"),
            ("model_index.json", {"_class_name": "WanVACEPipeline"}, "is a WanVACEPipeline; expected a WanPipeline"),
            ("transformer_2/config.json", {"image_dim": 1280}, "has a transformer_2 that expects an image"),
            ("transformer_2/config.json", {"in_channels": 36}, "transformer_2 that takes 36 .* expects an image or a"),
            ("transformer_2/config.json", {"text_dim": 7}, "has a transformer_2 for texts of 7 channels"),
            ("transformer_2/config.json", {"patch_size": [1, 1, 1]}, r"tokens differ: .*_2 \(8, 8\) pixels"),
            ("transformer_2/config.json", {"num_layers": 3}, "its transformer_2 cannot be loaded"),
        ],
    )  # fmt: skip
    def test_a_refusal_names_what_is_wrong(self, folder, file, changes, message):
        edit_json(folder / file, **changes)
        with pytest.raises(BackboneError, match=message) as error:
            find(folder)
        assert "\n" not in str(error.value)

    def test_a_second_that_is_not_there_is_missed(self, folder):
        shutil.rmtree(folder / "transformer_2")
        with pytest.raises(BackboneError, match="lacks transformer_2; fetch or copy the folder again"):
            find(folder)


class TestTi2v:
    def test_says_its_size_step_and_its_timesteps(self, ti2v_folder):
        found = find(ti2v_folder)
        (expert,) = found.shape.experts
        assert found.shape.pixel_step == (32, 32) and expert.expand_timesteps and expert.name == ""
        assert find(ti2v_folder).shape.settings == {"expand_timesteps": True}

    def test_per_token_timesteps_are_in_the_digest(self, ti2v_folder, tmp_path):
        folder = Path(shutil.copytree(ti2v_folder, tmp_path / "copy"))
        edit_json(folder / "model_index.json", expand_timesteps=False)
        assert find(folder).digest != find(ti2v_folder).digest

    def test_stock_pipelines_expand_patches_of_two_alone(self, ti2v_folder, tmp_path):
        folder = Path(shutil.copytree(ti2v_folder, tmp_path / "copy"))
        edit_json(folder / "transformer" / "config.json", patch_size=[1, 1, 1])
        with pytest.raises(BackboneError, match="has expand_timesteps but a patch of 1 x 1"):
            find(folder)


class TestSettings:
    def settings(self, **sections: dict[str, object]) -> Params:
        sections["ingest"] = {"height": 64, "width": 64, "num_frames": 17} | sections.get("ingest", {})
        return Params.model_validate(sections)

    @pytest.mark.parametrize(
        ("sections", "message"),
        [
            ({"backbone": {"experts": "high_noise"}}, r"backbone\.experts is high_noise but .* has one transformer"),
            ({"render": {"guidance_scale_2": 3}}, r"render\.guidance_scale_2 is 3.* has one transformer; leave it out"),
            ({"ingest": {"height": 48}}, r"ingest\.height is 48, which is not a multiple of 32 .*; the nearest is 32"),
        ],
    )
    def test_of_two_are_refused_for_one(self, ti2v_folder, sections, message):
        found = find(ti2v_folder)
        check_settings(found, self.settings())
        with pytest.raises(ParamsError, match=message):
            check_settings(found, self.settings(**sections))

    def test_each_expert_that_is_tuned_has_a_noise_level(self, a14b_folder):
        found, low, high = find(a14b_folder), {"noise_levels": [0.5]}, {"noise_levels": [0.9]}
        alone = {"experts": "high_noise"}
        check_settings(found, self.settings(heads={"noise_levels": [0.5, 0.9]}, render={"guidance_scale_2": 3}))
        check_settings(found, self.settings(heads=high, backbone=alone))
        with pytest.raises(ParamsError, match=r"levels is \[0\.5\] but the high_noise .* from 0\.875 to 1; add one"):
            check_settings(found, self.settings(heads=low, backbone=alone))
        with pytest.raises(ParamsError, match=r"levels is \[0\.9\] but the low_noise .* from 0 to 0\.875; add one"):
            check_settings(found, self.settings(heads=high))

    def test_of_the_presets_fit(self, a14b_folder, ti2v_folder):
        pair, single = find(a14b_folder), find(ti2v_folder)
        for name, found, tuned in (
            ("wan2.2-t2v-a14b", pair, [HIGH, LOW]),
            ("wan2.2-t2v-a14b-high", pair, [HIGH]),
            ("wan2.2-ti2v-5b", single, [""]),
        ):
            params = load_params(name)
            check_settings(found, params)
            assert [expert.name for expert in tuned_experts(found, params.backbone)] == tuned
            assert (params.spatial.rank, params.spatial.steps, params.temporal.steps) == (128, 3000, 2000)
        ingest = load_params("wan2.2-ti2v-5b").ingest
        assert (ingest.fps, ingest.num_frames, ingest.height, ingest.width) == (24, 121, 704, 1280)
        render = load_params("wan2.2-t2v-a14b").render
        assert (render.guidance_scale, render.guidance_scale_2, render.flow_shift) == (4, 3, 12)
