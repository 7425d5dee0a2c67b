"""Every method runs through the same stages, is found again, fails alone, and is shown with its true cost."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from markupsafe import escape
from safetensors.torch import load_file
from webpage import HOSTILE, Page

from effivmt.benchmark import page, peer_stages, runner
from effivmt.benchmark.cells import Job, JobResult, run_job
from effivmt.benchmark.claims import UNTESTED
from effivmt.benchmark.delivery import write_comparison
from effivmt.benchmark.markdown import brief, cell, claim_evidence, markdown
from effivmt.benchmark.methods import METHODS, OURS, of_file
from effivmt.benchmark.peers import PEERS, peer_params
from effivmt.benchmark.results import RunInfo
from effivmt.benchmark.scatter import scatter
from effivmt.benchmark.statistics import Estimate, as_estimate
from effivmt.catalog import Catalog, Clip
from effivmt.config import Params
from effivmt.errors import VideoError
from effivmt.media.video import write_video
from effivmt.params_file import set_value
from effivmt.pipeline import stages
from effivmt.pipeline.workspace import LoadedBackbone, Workspace
from effivmt.store.store import Store

RUN = [name for name, method in METHODS.items() if method.kind != "sweep"]
ABOUT = RunInfo("tiny", "wan-random", "0" * 64, "0.1.0", "abc123", 1, {"seed": 0})
KNOBS = {"motion_director": ("steps=2", "rank=2"), "ditflow": ("adam_steps=1",), "smm": ("adam_steps=1",)}


def settings(params: Params, name: str) -> Params:
    """The method's params over those of the tests, with fewer frames and steps."""
    tree = params.model_dump()
    for override in ("ingest.num_frames=9", "sampling.frames=5", "spatial.steps=2", "temporal.steps=2"):
        set_value(tree, override)
    for override in (*METHODS[name].overrides, "render.baseline=false"):
        set_value(tree, override)
    return Params.model_validate(tree)


def job(params: Params, name: str, clip: Clip) -> Job:
    maker = METHODS[name].maker
    peer = peer_params(maker, {}, [f"{maker}.{it}" for it in KNOBS.get(maker, ())]) if maker in PEERS else None
    return Job(METHODS[name], settings(params, name), clip, peer)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bench") / "store"


@pytest.fixture
def clip(clip) -> Clip:
    return clip.model_copy(update={"prompts": clip.prompts[:1], "group": "single object"})


_DONE: dict[str, JobResult] = {}


@pytest.fixture
def done(store, params, clip, backbone) -> dict[str, JobResult]:
    """What came of each method, done once for all tests here."""
    if not _DONE:
        for name in RUN:
            made = job(params, name, clip)
            _DONE[name] = run_job(Workspace(Store(store), made.params, loaded=LoadedBackbone(backbone=backbone)), made)
    return _DONE


class TestMethods:
    def test_every_one_gives_a_measured_video(self, done):
        assert {name: one.errors for name, one in done.items()} == dict.fromkeys(RUN, ())
        for one in done.values():
            (found,) = one.cells
            assert {"motion_fidelity", "text_similarity", "trajectory_error"} <= found.metrics.keys()
            assert found.seconds > 0 and found.peak_bytes > 1e8
            assert found.video.file("video.mp4").stat().st_size > 0

    def test_a_second_run_is_all_hits_with_the_same_costs(self, done, store, params, clip):
        loaded = LoadedBackbone()
        for name in RUN:
            made = job(params, name, clip)
            again = run_job(Workspace(Store(store), made.params, loaded=loaded), made)
            (first,), (second,) = done[name].cells, again.cells
            assert again.cached, name
            assert (second.seconds, second.peak_bytes, second.metrics) == (
                first.seconds,
                first.peak_bytes,
                first.metrics,
            )
        assert loaded.folder is not None and loaded.backbone is None

    def test_peers_render_in_every_step(self, tmp_path):
        own = tmp_path / "own_method.py"
        own.write_text("", encoding="utf-8")
        of_peers = [*(method for method in METHODS.values() if method.peer), of_file(str(own))]
        boundaries = {method.name: method.params(None).render.motion_boundary for method in of_peers}
        assert boundaries.pop("motion-director-high-noise") == METHODS[OURS].params(None).render.motion_boundary > 0
        assert set(boundaries) > {"motion-director", "smm", "own-method"} and not any(boundaries.values())
        assert METHODS["every-step"].params(None).render.motion_boundary == 0

    def test_methods_differ(self, done):
        videos = {name: one.cells[0].video.digest("video.mp4") for name, one in done.items()}
        assert videos.pop("two-stage") == videos.pop("without-decoupling")
        assert videos.pop("latent") == videos[OURS]  # the tests' default
        assert videos.pop("motion-director-high-noise") == videos["motion-director"]  # no step is below the boundary
        peers = [name for name in videos if METHODS[name].maker != "effivmt"]
        apart = [OURS, *peers, "two-stage", "fast", "clip-lora", "swapped-split", "dense", "pixel", "all-off"]
        videos["two-stage"] = done["two-stage"].cells[0].video.digest("video.mp4")
        assert len({videos[name] for name in apart}) == len(apart)

    def test_what_each_uses_is_what_it_costs(self, done, store, params, clip):
        work = Workspace(Store(store), settings(params, OURS))
        ingested = stages.ingest(work, clip)
        heads = stages.heads(work, clip, ingested)
        looks = stages.spatial(work, clip, ingested, heads)
        motion = stages.temporal(work, clip, ingested, heads, appearance=looks)
        (ours,) = done[OURS].cells
        assert ours.preparing_seconds == sum(a.seconds for a in (ingested, heads, looks, motion))
        assert ours.rendering_seconds == ours.video.seconds and ours.adapter_key == motion.key
        (alone,), (guided,) = done["backbone"].cells, done["smm"].cells
        assert alone.preparing_seconds == 0 and alone.adapter_key is None
        assert guided.preparing_seconds == ingested.seconds and guided.video.stage == "peer_render"
        assert (store / "peer_tune" / done["motion-director"].cells[0].adapter_key).is_dir()

    def test_the_reconstruction_is_the_reference_decoded(self, done, store, params, clip, backbone, tmp_path):
        (found,) = done["reconstruction"].cells
        work = Workspace(Store(store), settings(params, "reconstruction"))
        ingested = stages.ingest(work, clip)
        frames = backbone.decode_video(load_file(ingested.file("dense.safetensors"))["dense"][0])
        assert len(frames) == work.params.ingest.num_frames
        write_video(tmp_path / "copy.mp4", frames, work.params.ingest.fps)
        assert (tmp_path / "copy.mp4").read_bytes() == found.video.file("video.mp4").read_bytes()
        assert found.preparing_seconds == ingested.seconds and found.adapter_key is None

    def test_motion_director_renders_without_its_looks(self, done, store, params, clip):
        made = job(params, "motion-director", clip)
        louder = replace(made, params=made.params.model_copy(update={"seed": 1}))
        assert made.params.render.appearance_strength == 0
        work = Workspace(Store(store), louder.params)
        tuned = peer_stages.tune(work, clip, stages.ingest(work, clip), peer="motion_director", params=made.peer)
        assert not tuned.cached  # the seed counts


class TestFailures:
    def test_a_failing_cell_stops_nothing(self, done, store, params, clip, monkeypatch):
        real = stages.render

        def fail(work, prompts, adapter, *, images):
            if prompts[0].startswith("a bad"):
                raise VideoError("no such thing")
            return real(work, prompts, adapter, images=images)

        monkeypatch.setattr(stages, "render", fail)
        made = job(params, "backbone", clip.model_copy(update={"prompts": (clip.prompts[0], "a bad prompt")}))
        found = run_job(Workspace(Store(store), made.params), made)
        assert [one.error for one in found.cells] == ["", "no such thing"]
        assert not found.cached and found.errors == ("no such thing",)

    def test_a_missing_video_fails_all_its_cells(self, store, params, clip):
        lost = clip.model_copy(update={"video": Path("gone.mp4"), "prompts": ("one", "two")})
        made = job(params, OURS, lost)
        found = run_job(Workspace(Store(store), made.params), made)
        assert len(found.cells) == 2 and all("gone.mp4 does not exist" in one.error for one in found.cells)
        assert found.reference is None and found.cells[0].seconds is None


class TestRunner:
    def test_pick_takes_classes_in_turn(self, clip):
        clips = [clip.model_copy(update={"clip": f"{g}{i}", "group": g}) for g in "ab" for i in range(3)]
        catalog = Catalog(Path("c.csv"), tuple(clips))
        assert [one.clip for one in runner.pick(catalog, 3, None)] == ["a0", "a1", "b0"]
        assert len(runner.pick(catalog, None, None)) == 6
        assert runner.pick(catalog, 1, 1)[0].prompts == clip.prompts[:1]

    def test_jobs_go_on_in_processes(self, done, store, params, clip):
        jobs = [job(params, name, clip) for name in ("backbone", OURS)]
        lost = replace(jobs[0], clip=clip.model_copy(update={"clip": "lost", "video": Path("gone.mp4")}))
        seen = []
        found = runner.run(Store(store), [*jobs, lost], 2, seen.append)
        assert [one.job.clip.clip for one in found] == [clip.clip, clip.clip, "lost"]
        assert [one.cached for one in found] == [True, True, False] and len(seen) == 3
        assert found[0].cells[0].metrics == done["backbone"].cells[0].metrics


@pytest.fixture
def written(done, store, tmp_path) -> tuple[Path, dict]:
    """A comparison of all methods, one of them failing on a second clip whose texts are hostile."""
    chosen = [done[name] for name in RUN]
    ours = done[OURS]
    other = ours.job.clip.model_copy(update={"clip": "other", "caption": HOSTILE, "group": "camera"})
    values = {name: value + 0.125 for name, value in ours.cells[0].metrics.items()}
    good = replace(
        ours, job=replace(ours.job, clip=other), cells=(replace(ours.cells[0], clip="other", metrics=values),)
    )
    bad = replace(done["smm"], job=replace(done["smm"].job, clip=other))
    bad = replace(bad, cells=(replace(bad.cells[0], clip="other", error=HOSTILE, metrics=None, video=None),))
    methods = [METHODS[name] for name in RUN]
    summary = write_comparison(tmp_path / "out", ABOUT, methods, results=[*chosen, good, bad])
    return tmp_path / "out", summary


class TestResults:
    def test_a_row_a_cell(self, written, done):
        rows = pq.read_table(written[0] / "results.parquet").to_pylist()
        assert len(rows) == len(RUN) + 2
        first = rows[0]
        assert (first["method"], first["clip"], first["class"], first["unsaid"]) == (
            OURS,
            "zigzag",
            "single object",
            None,
        )
        assert first["motion_fidelity"] == done[OURS].cells[0].metrics["motion_fidelity"]
        assert first["video"] == done[OURS].cells[0].video.key and first["adapter"] == done[OURS].cells[0].adapter_key
        (failed,) = (row for row in rows if row["error"])
        assert failed["method"] == "smm" and failed["motion_fidelity"] is None and failed["seconds"] is None

    def test_the_summary_has_means_intervals_and_differences(self, written, done):
        summary = json.loads((written[0] / "results.json").read_text())
        assert summary == json.loads(json.dumps(written[1]))
        assert (summary["clips"], summary["prompts"], summary["commit"]) == (2, 2, "abc123")
        ours = summary["methods"][OURS]
        value = done[OURS].cells[0].metrics["text_similarity"]
        found = ours["estimates"]["text_similarity"]
        assert found["mean"] == pytest.approx(value + 0.0625) and found["clips"] == 2
        assert (found["low"], found["high"]) == pytest.approx((value, value + 0.125))
        assert ours["by_class"]["camera"]["text_similarity"]["mean"] == pytest.approx(value + 0.125)
        assert ours["differences"] == {}
        other = summary["methods"]["backbone"]["differences"][OURS]["text_similarity"]
        assert other["mean"] == pytest.approx(done["backbone"].cells[0].metrics["text_similarity"] - value)
        assert other["clips"] == 1 and other["low"] is None
        assert set(summary["methods"]["pixel-none"]["differences"]) == {OURS, "pixel"}
        assert summary["methods"]["smm"]["failed"] == 1
        (failure,) = summary["failures"]
        assert (failure["method"], failure["clip"], failure["cells"]) == ("smm", "other", 1)

    def test_the_tables_have_every_method(self, written):
        text = (written[0] / "results.md").read_text()
        for heading in (
            "## Methods",
            "## Ablations",
            "## Controls",
            "## Paired differences",
            "## The paper's claims",
            "## By class",
            "## Failed",
        ):
            assert heading in text
        for name in RUN:
            assert METHODS[name].title in text
        assert "SMM (1 of 2 cells failed)" in text and "commit abc123" in text
        widths = {}
        for line in text.splitlines():
            if line.startswith("|"):
                widths.setdefault("table", []).append(line.count(" | "))
            elif "table" in widths:
                assert len(set(widths.pop("table"))) == 1
        assert text == markdown(written[1])
        for claim in written[1]["claims"]:
            evidence = claim_evidence(claim)
            assert f"| {claim['claim']} | {claim['verdict']} | {evidence} |" in text
            untested = claim["measure"] == "background_leakage"  # the ground is plain
            assert (METHODS[claim["first"]].title in evidence) is not untested

    def test_the_short_document_has_what_was_tested_and_what_failed(self, written):
        whole, text = markdown(written[1]), brief(written[1])
        assert set(text.splitlines()) < set(whole.splitlines())
        headings = [line for line in text.splitlines() if line.startswith("## ")]
        assert headings == ["## Paired differences", "## The paper's claims", "## By class of motion", "## Failed"]
        assert UNTESTED in whole and UNTESTED not in text

    @pytest.mark.parametrize(
        ("measure", "found", "signed", "text"),
        [
            ("motion_fidelity", Estimate(0.5, 0.25, 0.75, 8), False, "0.500 [0.250, 0.750]"),
            ("motion_fidelity", Estimate(-0.5, -0.75, -0.25, 8), True, "**-0.500 [-0.750, -0.250]**"),
            ("motion_fidelity", Estimate(0.5, -0.25, 0.75, 8), True, "+0.500 [-0.250, +0.750]"),
            ("seconds", Estimate(1234.56, None, None, 1), False, "1,234.6"),
            ("peak_bytes", Estimate(2.5e9, None, None, 1), False, "2,500"),
            ("flicker", None, False, "–"),
        ],
    )
    def test_numbers(self, measure, found, signed, text):
        assert cell(measure, found, signed=signed) == text

    def test_the_picture_has_a_point_for_each(self, written):
        picture = scatter(written[1])
        assert picture.dtype == np.uint8 and picture.shape[2] == 3 and np.array_equal(picture, scatter(written[1]))
        empty = {**written[1], "methods": {n: {**m, "estimates": {}} for n, m in written[1]["methods"].items()}}
        assert not np.array_equal(picture, scatter(empty))

    def test_estimates_survive_json(self, written):
        found = written[1]["methods"][OURS]["estimates"]["seconds"]
        assert as_estimate(json.loads(json.dumps(found))) == Estimate(**found) and as_estimate(None) is None


class TestPage:
    def test_reference_and_all_methods_side_by_side(self, written):
        out, source = written[0], (written[0] / "index.html").read_text()
        shown = Page(source)
        videos = [attributes for tag, attributes in shown.elements if tag == "video"]
        assert len(videos) == (1 + len(RUN)) + 2
        held = {attributes.get("id") for tag, attributes in shown.elements if tag == "script"}
        assert all(video["data-file"] in held for video in videos)
        assert len({video["data-file"] for video in videos}) < len(videos)  # equal files once
        assert all(escape(claim["claim"]) in source for claim in written[1]["claims"])
        assert "alert(1)" not in re.sub(r"&lt;script&gt;alert\(1\)", "", source)
        assert not re.search(r'(src|href)="(https?:)?//', source)
        assert {path.name for path in (out / "videos" / "zigzag").iterdir()} == {
            "reference.mp4", *(f"{name}-1.mp4" for name in RUN),
        }  # fmt: skip

    def test_above_the_limit_it_links_to_the_files(self, written, done, store, monkeypatch):
        monkeypatch.setattr(page, "LIMIT", 1)
        out = written[0]
        write_comparison(out, ABOUT, [METHODS[OURS]], results=[done[OURS]])
        shown = Page((out / "index.html").read_text())
        links = [attributes["href"] for tag, attributes in shown.elements if tag == "a"]
        assert links == ["videos/zigzag/reference.mp4", "videos/zigzag/effivmt-1.mp4"]
        assert all((out / link).is_file() for link in links)
        assert not any(tag == "video" for tag, _ in shown.elements)
        assert len(list((out / "videos").glob("*/*.mp4"))) == 2  # those of the run before are gone
