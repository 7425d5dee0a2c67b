"""A text is never cut without a word: the words that a backbone would not read are named, before any work."""

from pathlib import Path

import pytest
import torch

import effivmt
from effivmt.catalog import Catalog, Clip
from effivmt.config import Params
from effivmt.embedded import find_embedded
from effivmt.errors import CatalogError, ParamsError
from effivmt.method.text_length import text_fault
from effivmt.pipeline.plan import plan_clip
from effivmt.pipeline.selection import set_long_texts_aside
from effivmt.pipeline.stages import embed_texts
from effivmt.pipeline.transfer import run_clip
from effivmt.pipeline.workspace import Workspace

FITS = "a red square on a gray background and a blue star"  # 11 words, 15 with what follows; the end mark is one more
LONG = f"{FITS} over the view of a person with a shirt"


def test_a_backbone_reads_what_fits_and_the_words_beyond_are_named(backbone) -> None:
    assert text_fault(backbone.folder, f"{FITS} over the view of", 16) == ""
    fault = text_fault(backbone.folder, LONG, 16)
    assert "has 21 tokens, but the backbone reads 16 (backbone.max_sequence_length)" in fault
    assert "'a person with a shirt' would be lost" in fault
    kept, cut = backbone.encode_texts([f"{FITS} over the view of", LONG])
    assert torch.equal(kept, cut)  # so much is lost


def test_a_word_in_pieces_is_named_whole() -> None:
    folder = find_embedded("wan-tiny")
    fault = text_fault(folder, "a purple moon &amp; xylophonist", 14)
    assert fault.startswith("'a purple moon & xylophonist' has ") and "'xylophonist' would be lost" in fault
    assert text_fault(folder, "", 1) == text_fault(folder, "a red star", 32) == ""


def test_nothing_is_made_of_a_text_that_is_too_long(workspace: Workspace, clip: Clip) -> None:
    for wrong in (clip.model_copy(update={"caption": LONG}), clip.model_copy(update={"prompts": (FITS, LONG)})):
        with pytest.raises(ParamsError, match="'a person with a shirt' would be lost"):
            run_clip(workspace, wrong)
        assert plan_clip(workspace, wrong)[0].action == "fails"
    with pytest.raises(ParamsError, match="would be lost"):
        embed_texts(workspace, [LONG])
    assert not list(workspace.store.root.glob("*/*/artifact.json"))


def test_the_negative_prompt_is_named(params: Params, tmp_path: Path) -> None:
    render = params.render.model_copy(update={"negative_prompt": LONG})
    work = effivmt.open_workspace(params.model_copy(update={"render": render}), tmp_path)
    with pytest.raises(ParamsError, match=r"render\.negative_prompt 'a red square"):
        embed_texts(work, ["a star"])


def test_in_a_catalog_it_is_one_fault_with_row_and_column(workspace: Workspace, catalog: Catalog) -> None:
    one, *others = catalog.clips
    wrong = Catalog(catalog.path, (*others, one.model_copy(update={"prompts": (LONG,)})), rows=catalog.rows)
    told = set_long_texts_aside(workspace, wrong)
    assert told.clips == tuple(others)
    (fault,) = told.faults
    assert str(fault).startswith(f"row {catalog.rows[one.clip]}, column prompts: 'a red square on a gray")
    assert set_long_texts_aside(workspace, catalog) == catalog
    with pytest.raises(CatalogError, match="column prompts"):
        set_long_texts_aside(workspace, wrong.only((one.clip,)))
