"""Writes the tables of the last runs, out/perf/*.json, into docs/performance.md, between the marks of their scripts."""

import argparse
import json
import re
from pathlib import Path

from timing import table

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def fill(text: str, results: Path) -> str:
    """The document with each `<!-- NAME -->` ... `<!-- end of NAME -->` filled from NAME.json where that is there."""

    def filled(match: re.Match[str]) -> str:
        name, source = match[1], results / f"{match[1]}.json"
        if not source.is_file():
            return match[0]
        found = json.loads(source.read_text(encoding="utf-8"))
        facts = found["machine"]
        line = (
            f"{facts['device']}, threads: {facts['threads']}, torch {facts['torch']}, {facts['dtype']}; "
            f"{facts['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s, {facts['bytes_per_second'] / 1e9:,.1f} GB/s."
        )
        return f"<!-- {name} -->\n{table(found['rows'])}\n\n{line}\n<!-- end of {name} -->"

    return re.sub(r"<!-- ([a-z_]+) -->\n.*?<!-- end of \1 -->", filled, text, flags=re.DOTALL)


def main() -> None:
    """Rewrites the document in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("out/perf"), help="the folder of the JSON files")
    asked = parser.parse_args()
    DOCUMENT.write_text(fill(DOCUMENT.read_text(encoding="utf-8"), asked.results), encoding="utf-8")
    print(f"written: {DOCUMENT}")


if __name__ == "__main__":
    main()
