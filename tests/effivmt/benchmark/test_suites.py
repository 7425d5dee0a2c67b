"""Suites are found by name from any working folder, and a catalog file by its path."""

from pathlib import Path

import pytest

from effivmt.benchmark.files import CATALOG, EXTRA, QUICK
from effivmt.benchmark.suites import SUITES, suite_catalog, suite_name
from effivmt.catalog import load_catalog
from effivmt.errors import ParamsError


@pytest.mark.parametrize(("name", "clips"), [("mini", 24), ("quick", 8), ("extra", 9)])
def test_a_named_suite_is_found_from_any_folder(
    name: str, clips: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    catalog = load_catalog(suite_catalog(name))
    assert len(catalog.clips) == clips
    assert all(file.is_file() for clip in catalog.clips for file in (clip.video, *clip.images))
    assert suite_name(name) == name


def test_the_names_stand_for_the_catalogs_that_are_written() -> None:
    assert SUITES == {"mini": CATALOG, "quick": QUICK, "extra": EXTRA}


def test_a_catalog_file_is_taken_as_it_is_given() -> None:
    path = Path("data/motionbench-mini/tuning.csv")
    assert suite_catalog(str(path)) == path and suite_name(str(path)) == "tuning"


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(
        ParamsError, match="--suite maxi: there is no such suite; expected mini, quick, extra or a catalog"
    ):
        suite_catalog("maxi")
