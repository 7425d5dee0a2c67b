"""Writes the tables of the last runs, out/perf/*.json, into the pages of docs/, between the marks of their scripts."""

import argparse
import json
import re
from pathlib import Path

from timing import table

DOCUMENTS = [Path(__file__).resolve().parent.parent / "docs" / name for name in ("performance.md", "memory.md")]


def fill(text: str, results: Path) -> str:
    """The document with each `<!-- NAME -->` ... `<!-- end of NAME -->` filled from NAME.json where that is there."""

    def filled(match: re.Match[str]) -> str:
        name, source = match[1], results / f"{match[1]}.json"
        if not source.is_file():
            return match[0]
        found = json.loads(source.read_text(encoding="utf-8"))
        facts = found["machine"]
        line = facts and (
            f"{facts['device']}, threads: {facts['threads']}, torch {facts['torch']}, {facts['dtype']}; "
            f"{facts['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s, {facts['bytes_per_second'] / 1e9:,.1f} GB/s"
            f"{'; attention: ' + facts['attention'] if facts.get('attention', 'native') != 'native' else ''}"
            f"{'; compiled' if facts.get('compile') == 'true' else ''}.\n"
        )
        return f"<!-- {name} -->\n{table(found['rows'])}\n\n{line or ''}<!-- end of {name} -->"

    return re.sub(r"<!-- ([a-z_]+) -->\n.*?<!-- end of \1 -->", filled, text, flags=re.DOTALL)


def main() -> None:
    """Rewrites the pages in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("out/perf"), help="the folder of the JSON files")
    asked = parser.parse_args()
    for path in DOCUMENTS:
        path.write_text(fill(path.read_text(encoding="utf-8"), asked.results), encoding="utf-8")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
