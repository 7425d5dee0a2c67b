"""The scripts of bench/: each prints a table and writes JSON, and the document takes the tables up."""

import json
import sys
from pathlib import Path

import pytest

import classification
import document
import gpu
import pipeline
import preview
import render
import step
from effivmt.benchmark.settings import settings_of
from effivmt.method.backbone_folder import find_backbone
from effivmt.params_file import load_params
from timing import interleaved, table


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs a script with arguments and one round; returns the document that it wrote."""

    def run(script, *arguments: str) -> dict:
        out = tmp_path / "perf" / f"{script.__name__}.json"
        monkeypatch.setattr(sys, "argv", [script.__name__, "--out", str(out), "--rounds", "1", *arguments])
        script.main()
        return json.loads(out.read_text())

    return run


@pytest.mark.slow
def test_the_gpu_script_at_small_shapes(run, capsys):
    found = run(gpu, "--small")
    steps = [row["what"] for row in found["rows"] if row["kind"] == "small 1.3B"]
    assert steps == [
        "spatial step",
        "temporal step",
        "dense temporal step",
        "head classification",
        "rendered step, guided",
        "plain LoRA step, all heads",
        "decoding",
    ]
    assert [row["what"] for row in found["rows"] if row["kind"] != "small 1.3B"] == [
        "spatial step",
        "temporal step",
        "head classification",
        "rendered step, guided",
        "decoding",
    ]
    minutes = [row["minutes in all"] for row in found["rows"] if row["minutes in all"] is not None]
    assert len(minutes) == 4 and all(minutes)  # of 3000 and 2000 steps of both kinds
    for row in found["rows"]:
        assert row["ms"] > 0 and row["TFLOP"] > 0 and 0 < row["share of matmul rate"] < 2
    assert found["machine"]["matmul_flops_per_second"] > 1e8 and "| kind " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments", "first"),
    [
        (step, ["--no-dense"], "plain LoRA, all heads"),
        (classification, [], "plain forward"),
        (render, ["--steps", "1"], "stock pipeline"),
        (preview, ["--steps", "4"], "plain rendering of one prompt"),
        (pipeline, ["--clips", "2"], "import of torch"),
    ],
)
def test_quick_scripts(run, script, arguments, first):
    found = run(script, *arguments)
    (ratio,) = (
        value for name, value in found["rows"][0].items() if name.startswith("ratio to") or name == "ratio of time"
    )
    assert first in found["rows"][0].values() and ratio == 1


def test_cases_take_turns_and_the_first_round_is_left_out():
    calls: list[str] = []
    seconds = {"a": iter([9.0, 1.0, 2.0, 3.0]), "b": iter([9.0, 4.0, 6.0, 6.0])}

    def case(name: str) -> float:
        calls.append(name)
        return next(seconds[name])

    found = interleaved({"a": lambda: case("a"), "b": lambda: case("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert (found["a"].seconds, found["a"].ratio) == (2.0, 1.0)
    assert (found["b"].seconds, found["b"].ratio, found["b"].spread) == (6.0, 3.0, 0.5)


def test_a_table_and_the_document(tmp_path):
    rows = [{"step": "ours", "ms": 1.23456, "peak": None}]
    assert table(rows) == "| step | ms   | peak |\n|------|------|------|\n| ours | 1.23 | –    |"
    facts = {"device": "a card", "threads": 1, "torch": "2", "dtype": "float32"}
    facts |= {"matmul_flops_per_second": 5e10, "bytes_per_second": 1e10}
    (tmp_path / "step.json").write_text(json.dumps({"rows": rows, "machine": facts}))
    text = "a\n<!-- step -->\nold\n<!-- end of step -->\n<!-- gpu -->\nnone\n<!-- end of gpu -->\n"
    filled = document.fill(text, tmp_path, tmp_path)
    assert "old" not in filled and "| ours | 1.23 | –    |\n\na card, threads: 1" in filled
    assert "<!-- gpu -->\nnone\n<!-- end of gpu -->" in filled
    assert document.fill(filled, tmp_path, tmp_path) == filled


def test_a_short_document_stands_below_its_section(tmp_path):
    (tmp_path / "quick").mkdir()
    results = json.loads((document.BENCH / "results.json").read_text(encoding="utf-8"))
    (tmp_path / "quick/results.json").write_text(json.dumps(results))
    filled = document.fill("<!-- quick -->\n<!-- end of quick -->\n", tmp_path, tmp_path)
    assert "\n### Paired differences\n" in filled and "\n## " not in filled and "# Comparison" not in filled
    assert document.fill("<!-- extra -->\nold\n<!-- end of extra -->\n", tmp_path, tmp_path).count("old") == 1


def test_the_readmes_table_is_of_what_ships():
    """Of the runs in data/bench, whose backbone and settings are those of the package; only its seeds are its own."""
    shipped = load_params(document.ROOT / "params.yaml")
    now, digest = settings_of(shipped), find_backbone(shipped.backbone).digest
    for name in ("README.md", "docs/comparison.md"):
        text = (document.ROOT / name).read_text(encoding="utf-8")
        assert document.fill(text, Path("nowhere"), document.BENCH) == text
        assert digest[:12] in text
    for run in set(document.RUNS.values()):
        results = json.loads((document.BENCH / run).read_text(encoding="utf-8"))
        assert results["backbone_digest"] == digest
        made = {name: value for name, value in results["settings"].items() if name != "render.seeds"}
        assert made == {name: now[name] for name in made}


def test_every_script_has_its_place_in_the_document():
    text = "".join(path.read_text(encoding="utf-8") for path in document.DOCUMENTS)
    scripts = {path.stem for path in Path(document.__file__).parent.glob("*.py")}
    assert {"step", "classification", "render", "preview", "pipeline", "gpu", "memory"} <= scripts
    for name in ("step", "classification", "render", "preview", "pipeline", "gpu", "memory"):
        assert f"<!-- {name} -->" in text and f"<!-- end of {name} -->" in text
