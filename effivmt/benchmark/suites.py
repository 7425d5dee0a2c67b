"""The benchmark suites that travel in the package `effivmt_data`, by name."""

from pathlib import Path

from effivmt.embedded import data_folder
from effivmt.errors import ParamsError

SUITES = {"mini": "catalog.csv", "quick": "quick.csv", "extra": "extra.csv"}
"""Catalogs in motionbench-mini: all 24 clips, a subset of 8, and 9 clips of image to video and a part of the motion."""
CATALOG_SUFFIXES = (".csv", ".jsonl", ".parquet")


def suite_catalog(suite: str) -> Path:
    """The catalog file of a suite, which is named in `SUITES` or is itself a catalog file; ParamsError for neither.

    In a checkout a named suite is that of the working tree, from any working folder.
    """
    if suite in SUITES:
        return data_folder() / "motionbench-mini" / SUITES[suite]
    if Path(suite).suffix not in CATALOG_SUFFIXES:
        raise ParamsError(f"--suite {suite}: there is no such suite; expected {', '.join(SUITES)} or a catalog file")
    return Path(suite)


def suite_name(suite: str) -> str:
    """The name under which results show a suite: its own, or the stem of its catalog file."""
    return suite if suite in SUITES else Path(suite).stem
