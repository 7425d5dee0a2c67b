"""Writes the tables of the last runs into the README and docs/, between the marks of their names.

A script's name stands for its out/perf/NAME.json; `summary` and `comparison` stand for data/bench/results.json, which
`effivmt bench --out data/bench` writes, `quick` and `extra` for the results.json in the folders there of these names.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from effivmt.benchmark.markdown import brief, markdown, summary_table
from effivmt.benchmark.results import Summary
from timing import table

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "data/bench"
RUNS = {
    "summary": "results.json",
    "comparison": "results.json",
    "quick": "quick/results.json",
    "extra": "extra/results.json",
}
DOCUMENTS = [ROOT / name for name in ("README.md", "docs/performance.md", "docs/memory.md", "docs/comparison.md")]


def fill(text: str, results: Path, bench: Path) -> str:
    """The document with each `<!-- NAME -->` ... `<!-- end of NAME -->` filled where there is a result of that name.

    results: the folder of the scripts' JSON files; bench: that of the comparison's runs.
    """

    def filled(match: re.Match[str]) -> str:
        name = match[1]
        source = bench / RUNS[name] if name in RUNS else results / f"{name}.json"
        if not source.is_file():
            return match[0]
        found = json.loads(source.read_text(encoding="utf-8"))
        if name == "summary":
            body = summary(found)
        elif name == "comparison":
            body = _below(markdown(found))
        elif name in RUNS:
            body = _below(brief(found))
        else:
            body = measured(found)
        return f"<!-- {name} -->\n{body}<!-- end of {name} -->"

    return re.sub(r"<!-- ([a-z_]+) -->\n.*?<!-- end of \1 -->", filled, text, flags=re.DOTALL)


def _below(text: str) -> str:
    """A document without its title, its headings one level lower."""
    return text.partition("\n\n")[2].replace("\n## ", "\n### ")


def measured(found: dict[str, Any]) -> str:
    """The table of a script of bench/, and the machine that measured it."""
    facts = found["machine"]
    line = facts and (
        f"{facts['device']}, threads: {facts['threads']}, torch {facts['torch']}, {facts['dtype']}; "
        f"{facts['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s, {facts['bytes_per_second'] / 1e9:,.1f} GB/s"
        f"{'; attention: ' + facts['attention'] if facts.get('attention', 'native') != 'native' else ''}"
        f"{'; compiled' if facts.get('compile') == 'true' else ''}.\n"
    )
    return f"{table(found['rows'])}\n\n{line or ''}"


def summary(found: Summary) -> str:
    """The comparison's first table, and what it was run on."""
    run = (
        f"{found['clips']} clips, {found['prompts']} prompts, {found['seeds']} seeds; backbone {found['backbone']} "
        f"({found['backbone_digest'][:12]}); commit {found['commit']}."
    )
    return f"{summary_table(found)}\n\n{run}\n"


def main() -> None:
    """Rewrites the pages in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("out/perf"), help="the folder of the scripts' JSON files")
    asked = parser.parse_args()
    for path in DOCUMENTS:
        path.write_text(fill(path.read_text(encoding="utf-8"), asked.results, BENCH), encoding="utf-8")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
