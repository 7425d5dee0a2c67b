"""The store publishes whole results or nothing, once per key, and says why it has none."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from storing import (
    KEY,
    leftovers,
    make,
    make_until_killed,
)

from effivmt.errors import ParamsError, StoreError
from effivmt.store.digests import canonical_json, sha256_bytes, sha256_tree


class TestKey:
    def test_every_part_changes_the_digest(self):
        keys = [
            KEY,
            replace(KEY, stage="temporal"),
            replace(KEY, version=2),
            replace(KEY, inputs={**KEY.inputs, "heads": "e" * 64}),
            replace(KEY, inputs={"clip": KEY.inputs["clip"]}),
            replace(KEY, params={**KEY.params, "steps": 51}),
            replace(KEY, params={**KEY.params, "optimizer": {"lr": 2e-4}}),
            replace(KEY, backbone="a" * 64),
        ]
        assert len({key.digest for key in keys}) == len(keys)
        assert replace(KEY, params=dict(reversed(KEY.params.items()))).digest == KEY.digest

    def test_is_the_digest_of_its_five_parts(self):
        parts = {name: getattr(KEY, name) for name in ("stage", "version", "inputs", "params", "backbone")}
        assert KEY.digest == sha256_bytes(canonical_json(parts))

    def test_later_changes_of_the_params_leave_it_alone(self):
        params = {"optimizer": {"lr": 1e-4}}
        key = replace(KEY, params=params)
        before = key.digest
        params["optimizer"]["lr"] = 1.0
        assert key.digest == before

    @pytest.mark.parametrize(
        ("part", "wrong", "message"),
        [
            ("stage", "../x", "stage '../x'"),
            ("stage", "locks", "stage 'locks'"),
            ("version", "1", "version '1'"),
            ("inputs", {"clip": 3}, r"inputs\.clip of stage spatial is 3"),
            ("inputs", ["clip"], "inputs of stage spatial is a list"),
            ("params", {"path": Path("x")}, r"params\.path is .*Path"),
            ("backbone", None, "backbone of stage spatial is None"),
        ],
    )
    def test_names_the_wrong_part(self, part, wrong, message):
        with pytest.raises(ParamsError, match=message):
            replace(KEY, **{part: wrong})


class TestBuild:
    def test_miss_then_hit(self, store):
        assert store.find(KEY) is None
        assert not store.root.exists()
        made = store.build(KEY, make)
        assert not made.cached
        assert made.path == store.root / "spatial" / KEY.digest
        assert made.files == {
            "adapter.bin": sha256_bytes(bytes(range(256)) * 40),
            "frames/0.txt": sha256_bytes(b"first frame"),
        }
        assert made.file("frames/0.txt").read_text() == "first frame"
        assert made.digest("frames/0.txt") == sha256_bytes(b"first frame")
        hit = store.build(KEY, make_until_killed)  # would sleep two minutes if it ran
        assert hit == store.find(KEY) == replace(made, cached=True)
        assert leftovers(store.root) == []
        with pytest.raises(StoreError, match=f"{KEY.digest} lists no file 'no.bin'"):
            made.file("no.bin")

    def test_record_says_what_made_it(self, store):
        record = json.loads((store.build(KEY, make).path / "artifact.json").read_text())
        assert record["key"]["params"] == KEY.params
        assert record["files"]["adapter.bin"] == {"sha256": sha256_bytes(bytes(range(256)) * 40), "size": 10240}
        assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
        assert set(record["versions"]) == {"python", "torch", "diffusers", "peft", "effivmt"}

    def test_seconds_are_those_of_the_work(self, store):
        made = store.build(KEY, lambda out, scratch: (time.sleep(0.2), make(out, scratch)))
        assert 0.2 <= made.seconds < 5
        assert store.find(KEY).seconds == made.seconds

    def test_content_digest_depends_on_content_alone(self, store):
        first = store.build(KEY, make)
        second = store.build(replace(KEY, version=2), lambda out, scratch: (time.sleep(0.05), make(out, scratch)))
        other = store.build(replace(KEY, version=3), lambda out, scratch: (out / "adapter.bin").write_bytes(b"other"))
        assert first.seconds != second.seconds
        assert first.content_digest == second.content_digest != other.content_digest
        (first.path / "artifact.json").unlink()
        assert sha256_tree(first.path) == first.content_digest

    def test_exception_propagates_publishes_nothing_and_keeps_scratch(self, store):
        def fail(out, scratch):
            (out / "half.bin").write_bytes(b"half")
            (scratch / "step-40.txt").write_text("forty steps")
            raise ZeroDivisionError("of the stage")

        with pytest.raises(ZeroDivisionError, match="of the stage"):
            store.build(KEY, fail)
        assert store.find(KEY) is None
        assert leftovers(store.root) == [f"scratch/{KEY.digest}"]
        seen = []
        store.build(KEY, lambda out, scratch: (seen.append((scratch / "step-40.txt").read_text()), make(out, scratch)))
        assert seen == ["forty steps"]
        assert leftovers(store.root) == []

    def test_force_makes_it_again_from_an_empty_scratch_folder(self, store):
        old = store.build(KEY, make)
        stale = store.root / "scratch" / KEY.digest
        stale.mkdir()
        (stale / "step-40.txt").touch()
        seen = []

        def make_other(out, scratch):
            seen.append((list(scratch.iterdir()), store.find(KEY).files == old.files))  # readers keep the old one
            (out / "other.bin").write_bytes(b"other")

        new = store.build(KEY, make_other, force=True)
        assert seen == [([], True)]
        assert not new.cached
        assert set(new.files) == {"other.bin"}
        assert {path.name for path in new.path.iterdir()} == {"other.bin", "artifact.json"}
        assert store.find(KEY) == replace(new, cached=True)
        assert leftovers(store.root) == []

    def test_force_that_fails_keeps_the_old_one(self, store):
        old = store.build(KEY, make)
        with pytest.raises(ZeroDivisionError):
            store.build(KEY, lambda out, scratch: 1 / 0, force=True)
        assert store.find(KEY) == replace(old, cached=True)

    def test_refuses_links_special_files_its_own_record_and_nothing(self, store, tmp_path):
        faults = {
            "wrote no file": lambda out, scratch: (out / "empty").mkdir(),
            "there is a link or a special file": lambda out, scratch: (out / "there").symlink_to(tmp_path),
            "pipe is a link or a special file": lambda out, scratch: os.mkfifo(out / "pipe"),
            "artifact.json was written by the stage": lambda out, scratch: (out / "artifact.json").write_text("{}"),
        }
        for message, fault in faults.items():
            with pytest.raises(StoreError, match=message):
                store.build(KEY, fault)
            assert store.find(KEY) is None

    def test_very_long_inputs(self, store):
        key = replace(KEY, inputs={"clip": "c" * 100_000}, params={"prompt": "ü\ud800 " * 50_000})
        made = store.build(key, make)
        assert store.find(key) == replace(made, cached=True)


class TestExplain:
    def test_hit_and_never_computed(self, store):
        assert store.explain(KEY) == "never computed"
        store.build(KEY, make)
        assert store.explain(KEY) == "hit"
        assert store.explain(replace(KEY, inputs={**KEY.inputs, "clip": "e" * 64})) == "never computed"
        assert store.explain(replace(KEY, inputs={"heads": "d" * 64})) == "never computed"
        assert store.explain(replace(KEY, stage="temporal")) == "never computed"
        assert store.explain(replace(KEY, inputs={"clip": KEY.inputs["heads"]})) == "never computed"  # another role

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"version": 2}, "version: 1 -> 2"),
            ({"backbone": "a" * 64}, "backbone changed"),
            ({"inputs": {"clip": "c" * 64, "heads": "e" * 64}}, "inputs.heads changed"),
            ({"params": {"steps": 60, "optimizer": {"lr": 1e-4}}}, "params.steps: 50 -> 60"),
            (
                {"params": {"steps": 50, "optimizer": {"lr": 2e-4, "name": "adamw"}}},
                'params.optimizer.lr: 0.0001 -> 0.0002; params.optimizer.name: absent -> "adamw"',
            ),
        ],
    )
    def test_names_the_part_that_changed(self, store, change, reason):
        store.build(KEY, make)
        assert store.explain(replace(KEY, **change)) == reason

    def test_compares_with_the_newest(self, store):
        for steps in (50, 70, 60):
            store.build(replace(KEY, params={"steps": steps}), make)
        assert store.explain(replace(KEY, params={"steps": 80})) == "params.steps: 60 -> 80"


def test_import_is_light():
    code = (
        "import sys, effivmt.store.store; print(*sorted({'torch', 'numpy', 'pydantic', 'filelock'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
