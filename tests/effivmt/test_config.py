"""Params are checked once, at the edge: every wrong value is named, in one line, with what was expected."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from effivmt.config import Params
from effivmt.embedded import EMBEDDED, find_embedded
from effivmt.errors import ParamsError
from effivmt.params_file import load_params, presets


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 3\ntemporal:\n  rope: paper\n")
    return path


class TestDefaults:
    def test_are_valid_and_frozen(self):
        params = Params()
        assert params == Params.model_validate(params.model_dump())
        assert params == Params.model_validate_json(params.model_dump_json())
        with pytest.raises(ValidationError, match="frozen"):
            params.seed = 1
        with pytest.raises(ValidationError, match="frozen"):
            params.temporal.rank = 1

    def test_are_the_preset_tiny_and_the_params_of_the_repository(self):
        assert load_params("tiny") == Params() == load_params(Path(__file__).parents[2] / "params.yaml")

    def test_band_follows_the_paper(self):
        assert Params().heads.band is None


class TestPresets:
    def test_follow_the_paper_where_it_speaks(self):
        for name in ("wan2.1-1.3b", "wan2.1-1.3b-paper", "wan2.1-14b"):
            params = load_params(name)
            assert (params.ingest.num_frames, params.sampling.frames) == (81, 17)
            assert (params.spatial.rank, params.temporal.rank) == (128, 128)
            assert (params.spatial.steps, params.temporal.steps) == (3000, 2000)
            assert params.heads.alpha == 1.25

    def test_of_wan_follow_what_was_measured_and_one_keeps_the_papers_numbers(self):
        for name in ("wan2.1-1.3b", "wan2.1-14b"):
            params = load_params(name)
            assert (params.sampling.mode, params.temporal.rope) == (Params().sampling.mode, Params().temporal.rope)
            assert max(params.heads.noise_levels) < 1
            assert params.render.appearance_strength == Params().render.appearance_strength
        paper = load_params("wan2.1-1.3b-paper")
        assert (paper.sampling.mode, paper.sampling.phases, paper.temporal.rope) == ("pixel", 1, "paper")

    def test_all_are_read_and_take_overrides(self):
        for name in presets():
            assert load_params(name, ("temporal.rank=3",)).temporal.rank == 3

    def test_an_unknown_one_is_told_with_those_there_are(self):
        with pytest.raises(ParamsError, match=r"wan3 cannot be read .* a preset: tiny, wan2\.1-1\.3b"):
            load_params("wan3")

    def test_a_file_of_the_name_comes_first(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("tiny").write_text("seed: 7\n")
        assert load_params("tiny").seed == 7

    def test_a_folder_of_the_name_is_no_file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("tiny").mkdir()
        assert load_params() == load_params("tiny") == Params()

    def test_without_a_name_the_file_of_the_folder_comes_first(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert load_params() == Params()
        Path("params.yaml").write_text("seed: 7\n")
        assert load_params().seed == 7

    def test_embedded_models_are_found_from_any_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in EMBEDDED:
            assert (find_embedded(name) / "README.md").is_file()
        Path("wan-tiny").mkdir()
        assert find_embedded("wan-tiny") != Path("wan-tiny")  # a user's folder shadows nothing
        assert find_embedded("./wan-tiny") == Path("wan-tiny")
        assert find_embedded("Wan-AI/Wan2.1-T2V-1.3B-Diffusers") == Path("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")


class TestLoadParams:
    def test_reads_the_file_over_the_defaults(self, file):
        params = load_params(file)
        assert params.seed == 3 and params.temporal.rope == "paper"
        assert params.spatial == Params().spatial

    def test_an_empty_file_is_the_defaults(self, tmp_path):
        (tmp_path / "params.yaml").write_text("")
        assert load_params(tmp_path / "params.yaml") == Params()

    def test_overrides_win_and_are_yaml(self, file):
        params = load_params(
            file,
            (
                "temporal.rope=none",
                "seed=5",
                "render.seeds=[1, 2]",
                "spatial.learning_rate=1e-4",
                "render.negative_prompt=blur = bad",
                "render.baseline=false",
            ),
        )
        assert params.temporal.rope == "none" and params.seed == 5 and params.render.seeds == (1, 2)
        assert params.spatial.learning_rate == 1e-4 and params.render.negative_prompt == "blur = bad"
        assert params.render.baseline is False

    def test_paths_are_relative_to_the_file_where_they_exist(self, file):
        (file.parent / "models" / "wan").mkdir(parents=True)
        (file.parent / "a.mp4").touch()
        overrides = ("backbone.path=models/wan", "evaluate.scorer=models/none", "heads.scope_clips=[a.mp4, b.mp4]")
        params = load_params(file, overrides)
        assert params.backbone.path == str(file.parent.resolve() / "models" / "wan")
        assert params.evaluate.scorer == "models/none"
        assert params.heads.scope_clips == (str(file.parent.resolve() / "a.mp4"), "b.mp4")
        hub_id = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
        assert load_params(file, (f"backbone.path={hub_id}",)).backbone.path == hub_id

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("ingest.num_frames=16", r"ingest\.num_frames: .*16 is not of the form 4k\+1; the nearest below is 13"),
            ("ingest.num_frames=1", r"ingest\.num_frames: .*greater than or equal to 5"),
            ("ingest.height=15", r"ingest\.height: .*greater than or equal to 16"),
            ("ingest.fps=0", r"ingest\.fps: .*greater than 0"),
            ("sampling.frames=85", r"sampling\.frames is 85 but ingest\.num_frames is 81"),
            ("sampling.mode=sparse", r"sampling\.mode: .*'anchored', 'latent', 'pixel' or 'dense'"),
            ("sampling.phases=0", r"sampling\.phases: "),
            ("heads.alpha=-1", r"heads\.alpha: .*greater than 0"),
            ("heads.noise_levels=[]", r"heads\.noise_levels: .*at least 1"),
            ("heads.noise_levels=[0.5, 1.5]", r"heads\.noise_levels\.1: .*less than or equal to 1"),
            ("heads.band=0", r"heads\.band: "),
            ("spatial.rank=0", r"spatial\.rank: .*greater than 0"),
            ("spatial.rank=many", r"spatial\.rank: .*valid integer"),
            ("spatial.rope=none", r"spatial\.rope: Extra inputs are not permitted"),
            ("temporal.motion_weight=-0.1", r"temporal\.motion_weight: "),
            ("temporal.rope=exact", r"temporal\.rope: .*'none', 'paper' or 'aligned'"),
            ("render.guidance_scale=0.5", r"render\.guidance_scale: "),
            ("render.seeds=[]", r"render\.seeds: .*at least 1"),
            ("backbone.dtype=float16", r"backbone\.dtype: "),
            ("backbone.max_sequence_length=513", r"backbone\.max_sequence_length: "),
            ("motion.weight=1", r"motion: Extra inputs are not permitted"),
            ("seed=one", r"seed: .*valid integer"),
        ],
    )
    def test_a_wrong_value_names_its_field(self, file, override, message):
        with pytest.raises(ParamsError, match=message) as error:
            load_params(file, (override,))
        assert "\n" not in str(error.value) and str(file) in str(error.value)

    def test_all_wrong_values_are_named_at_once(self, file):
        with pytest.raises(ParamsError, match=r"spatial\.rank: .*; temporal\.steps: "):
            load_params(file, ("spatial.rank=0", "temporal.steps=0"))

    @pytest.mark.parametrize(
        "override",
        [
            "rank",
            "=3",
            "a.b.c=1",
            "temporal.=1",
            "seed.value=1",
            "temporal.rank=[1",
            "render.negative_prompt=2024-99-99",
        ],
    )
    def test_a_wrong_override_is_quoted(self, file, override):
        with pytest.raises(ParamsError, match="--set ") as error:
            load_params(file, (override,))
        assert repr(override) in str(error.value) and "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"temporal: [1", "is not valid YAML"),
            (b"\xff\xfe\x00", "is not UTF-8 text"),
            (b"a: 2024-99-99", "is not valid YAML"),
            (b"- 1\n- 2\n", "holds a list; expected sections"),
            (b"temporal: 3\n", "temporal: "),
            (b"temporal:\n  rank: 2\n  rnak: 2\n", r"temporal\.rnak: Extra inputs"),
        ],
    )
    def test_a_wrong_file_is_named(self, tmp_path, content, message):
        path = tmp_path / "params.yaml"
        path.write_bytes(content)
        with pytest.raises(ParamsError, match=message) as error:
            load_params(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ParamsError, match=r"absent\.yaml cannot be read \(No such file or directory\)"):
            load_params(tmp_path / "absent.yaml")
