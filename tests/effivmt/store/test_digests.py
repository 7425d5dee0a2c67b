"""Digests of values, files and folders."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from effivmt.errors import ParamsError, StoreError
from effivmt.store.digests import canonical_json, sha256_bytes, sha256_file, sha256_tree


class TestCanonicalJson:
    def test_is_sorted_compact_and_exact(self):
        value = {"b": (1, 2.0, None, True), "a": 0.1 + 0.2, "ü": "é"}
        assert canonical_json(value) == b'{"a":0.30000000000000004,"b":[1,2.0,null,true],"\\u00fc":"\\u00e9"}'

    def test_order_of_keys_does_not_matter_and_types_do(self):
        assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2, "a": 1})
        assert len({canonical_json(v) for v in (1, 1.0, True, "1", [1], None)}) == 6

    @pytest.mark.parametrize(
        "wrong", [float("nan"), float("inf"), Path("x"), b"x", {1}, np.float32(1), np.zeros(2), object(), {1: 2}]
    )
    def test_names_the_field_that_is_no_json(self, wrong):
        with pytest.raises(ParamsError, match=r"value\.render\.steps\[1\].*expected"):
            canonical_json({"render": {"steps": [0, wrong]}})


class TestDigests:
    def test_known_sha256(self, tmp_path):
        (tmp_path / "f").write_bytes(b"abc")
        expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        assert sha256_bytes(b"abc") == sha256_file(tmp_path / "f") == expected

    def test_tree_sees_names_and_contents_not_order_links_or_hidden_entries(self, tmp_path):
        for name, order in (("one", ["x", "y", "sub/z"]), ("two", ["sub/z", "y", "x"])):
            (tmp_path / name / "sub").mkdir(parents=True)
            for file in order:
                (tmp_path / name / file).write_text(f"content of {file}")
        digest = sha256_tree(tmp_path / "one")
        assert sha256_tree(tmp_path / "two") == digest
        (tmp_path / "two" / ".cache").mkdir()
        (tmp_path / "two" / ".cache" / "fetched").write_text("today")
        assert sha256_tree(tmp_path / "two") == digest
        shutil.move(tmp_path / "two" / "sub", tmp_path / "elsewhere")
        (tmp_path / "two" / "sub").symlink_to(tmp_path / "elsewhere")
        assert sha256_tree(tmp_path / "two") == digest
        (tmp_path / "elsewhere" / "z").write_text("content of sub/Z")
        assert sha256_tree(tmp_path / "two") != digest
        (tmp_path / "one" / "x").rename(tmp_path / "one" / "w")
        assert sha256_tree(tmp_path / "one") != digest

    def test_tree_refuses_what_it_cannot_digest(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            sha256_tree(tmp_path / "absent")
        (tmp_path / "loop").symlink_to(tmp_path)
        with pytest.raises(StoreError, match="loop links to a folder around it"):
            sha256_tree(tmp_path)
        (tmp_path / "loop").unlink()
        (tmp_path / "broken").symlink_to(tmp_path / "absent")
        with pytest.raises(FileNotFoundError):
            sha256_tree(tmp_path)
        (tmp_path / "broken").unlink()
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(StoreError, match="pipe is neither a file nor a folder"):
            sha256_tree(tmp_path)
