"""The search tries the same number of values for every method and keeps the best that failed nowhere."""

from pathlib import Path

import pytest
import yaml

from effivmt.benchmark import search
from effivmt.benchmark.cells import Cell, JobResult
from effivmt.benchmark.methods import OURS
from effivmt.benchmark.peers import PEERS, peer_params, read_peers
from effivmt.catalog import Clip
from effivmt.params_file import load_params


@pytest.fixture
def jobs(tmp_path: Path, clip: Clip, params_file: Path) -> list[search.Job]:
    other = clip.model_copy(update={"clip": "other"})
    return search.plan([clip, other], params_file, ())


@pytest.fixture
def params_file(tmp_path: Path, params) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params.model_dump(mode="json")), encoding="utf-8")
    return path


def ended(
    jobs: list[search.Job], scores: dict[tuple[str, int], float], failing: set[tuple[str, int]]
) -> list[JobResult]:
    """A cell a job with its candidate's score, or failed on the second clip."""
    done = []
    for job in jobs:
        maker = job.method.maker
        if maker in PEERS:
            number = [peer_params(maker, {maker: it}) for it in search.CANDIDATES[maker]].index(job.peer)
        else:
            number = [it["heads.alpha"] for it in search.CANDIDATES[maker]].index(job.params.heads.alpha)
        bad = (maker, number) in failing and job.clip.clip == "other"
        metrics = {"two_sided_motion_fidelity": scores.get((maker, number), 0.0), "text_similarity": 0.25}
        cell = Cell(job.method.name, job.clip.clip, "p", 0, "broken" if bad else "", None if bad else metrics)
        done.append(JobResult(job, (cell,), None, cached=False))
    return done


def test_every_method_has_the_same_number_of_values_its_authors_among_them() -> None:
    assert search.CANDIDATES.keys() == {OURS, *PEERS}
    assert {len(candidates) for candidates in search.CANDIDATES.values()} == {4}
    assert load_params(Path("effivmt/presets/wan2.1-1.3b.yaml")).heads.alpha in {
        it["heads.alpha"] for it in search.CANDIDATES[OURS]
    }
    for maker, candidates in search.CANDIDATES.items():
        if maker == OURS:
            continue
        default = peer_params(maker, {}).model_dump()
        knob = "learning_rate" if "learning_rate" in candidates[0] else "learning_rates"
        tried = [peer_params(maker, {maker: it}).model_dump()[knob] for it in candidates]
        assert default[knob] in tried and len(set(tried)) == 4


def test_a_job_for_each_candidate_and_clip(jobs: list[search.Job]) -> None:
    assert len(jobs) == 5 * 4 * 2
    assert {job.method.maker for job in jobs} == {OURS, *PEERS}
    assert {job.method.name for job in jobs if job.peer is None} == {OURS}


def test_the_best_is_chosen_and_read_again(jobs: list[search.Job], tmp_path: Path) -> None:
    done = ended(
        jobs, {(OURS, 1): 0.1, ("smm", 1): 0.5, ("ditflow", 2): 0.3, ("flow_motion", 0): 0.9}, {("flow_motion", 0)}
    )
    rows = search.choose(done)
    chosen = {row["maker"]: row["values"] for row in rows if row["chosen"]}
    assert chosen["smm"] == search.CANDIDATES["smm"][1] and chosen["ditflow"] == search.CANDIDATES["ditflow"][2]
    assert chosen[OURS] == search.CANDIDATES[OURS][1]
    assert chosen["flow_motion"] == search.CANDIDATES["flow_motion"][1]  # the better one failed on a clip
    assert next(row["score"] for row in rows if row["values"] == chosen["smm"]) == pytest.approx(
        2 / (1 / 0.5 + 1 / 0.25)
    )
    search.write_chosen(tmp_path / "peers.yaml", rows, "Chosen here.")
    text = (tmp_path / "peers.yaml").read_text(encoding="utf-8")
    assert text.startswith("# Chosen here.\n") and "clips: Motion fidelity, two-sided; Text similarity.\n" in text
    assert text.count("(chosen)") == 5 and "failed" in text
    assert "0.333 of 0.500 and 0.250 (chosen)" in text
    tree = read_peers(tmp_path / "peers.yaml")
    assert tree.keys() == PEERS.keys()  # EffiVMT's own goes to the params file
    for maker in PEERS:
        values = chosen[maker]
        assert peer_params(maker, tree) == peer_params(maker, {maker: values})


def test_where_all_fail_nothing_is_chosen(jobs: list[search.Job], tmp_path: Path) -> None:
    rows = search.choose(ended(jobs, {}, {("smm", number) for number in range(4)}))
    assert not any(row["chosen"] for row in rows if row["maker"] == "smm")
    search.write_chosen(tmp_path / "peers.yaml", rows, "Chosen here.")
    assert "smm" not in read_peers(tmp_path / "peers.yaml")
