"""The store publishes whole results or nothing, once per key, whoever runs beside it and whoever is killed."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from effivmt.digests import canonical_json, sha256_bytes, sha256_tree
from effivmt.errors import ParamsError, StoreError
from effivmt.store import Artifact, Key, Store

SPAWN = multiprocessing.get_context("spawn")
KEY = Key("spatial", 1, {"clip": "c" * 64, "heads": "d" * 64}, {"steps": 50, "optimizer": {"lr": 1e-4}}, "b" * 64)


def make(out: Path, scratch: Path) -> None:
    (out / "frames").mkdir()
    (out / "adapter.bin").write_bytes(bytes(range(256)) * 40)
    (out / "frames" / "0.txt").write_text("first frame")


def make_once_slowly(out: Path, scratch: Path) -> None:
    """Leaves a line beside the store for every run of it."""
    with open(out.parents[2] / "runs.txt", "a") as runs:
        runs.write("run\n")
    time.sleep(0.3)
    make(out, scratch)


def make_until_killed(out: Path, scratch: Path) -> None:
    (out / "half.bin").write_bytes(b"half")
    (scratch / "step-40.txt").write_text("forty steps")
    (out.parents[2] / "reached").touch()
    time.sleep(120)


def build_in_child(root: Path, start, results) -> None:
    start.wait(60)
    results.put(Store(root).build(KEY, make_once_slowly))


def build_until_killed(root: Path) -> None:
    Store(root).build(KEY, make_until_killed)


def leftovers(root: Path) -> list[str]:
    return [
        p.relative_to(root).as_posix() for name in ("building", "scratch", "locks") for p in (root / name).glob("*")
    ]


@contextmanager
def unprivileged():
    """Without the superuser's right to write everywhere, so that folder permissions hold."""
    superuser = os.geteuid() == 0
    if superuser:
        os.seteuid(65534)
    try:
        yield
    finally:
        if superuser:
            os.seteuid(0)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


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


class TestDamage:
    def test_deleted_file_is_rebuilt(self, store):
        artifact = store.build(KEY, make)
        artifact.file("frames/0.txt").unlink()
        assert store.find(KEY) is None
        assert store.explain(KEY) == "damaged: frames/0.txt is missing"
        with pytest.raises(StoreError, match=r"frames/0\.txt is missing from artifact .*run stage spatial again"):
            artifact.file("frames/0.txt")
        assert not store.build(KEY, make).cached
        store.verify(store.find(KEY))

    def test_short_file_is_rebuilt(self, store):
        os.truncate(store.build(KEY, make).file("adapter.bin"), 100)
        assert store.find(KEY) is None
        assert store.explain(KEY) == "damaged: adapter.bin has 100 bytes of 10240"
        assert store.build(KEY, make).file("adapter.bin").stat().st_size == 10240

    def test_flipped_byte_is_named_by_verify(self, store):
        artifact = store.build(KEY, make)
        store.verify(artifact)
        with open(artifact.file("adapter.bin"), "r+b") as stream:
            stream.seek(5000)
            byte = stream.read(1)[0]
            stream.seek(5000)
            stream.write(bytes([byte ^ 1]))
        with pytest.raises(StoreError, match=r"adapter\.bin of artifact .*--force spatial"):
            store.verify(store.find(KEY))
        store.verify(store.build(KEY, make, force=True))

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"files": NaN}', b"[" * 100_000, None])
    def test_damaged_record_is_no_hit(self, store, content):
        path = store.build(KEY, make).path / "artifact.json"
        path.unlink() if content is None else path.write_bytes(content)
        assert store.find(KEY) is None
        assert store.explain(KEY).startswith("damaged: artifact.json")
        assert store.explain(replace(KEY, version=2)) == "never computed"
        assert not store.build(KEY, make).cached
        assert store.find(KEY)

    def test_altered_record_is_no_hit(self, store):
        made = store.build(KEY, make)
        path = made.path / "artifact.json"
        path.write_text(path.read_text().replace(made.digest("adapter.bin"), "0" * 64))
        assert store.find(KEY) is None


class TestTogether:
    def test_processes_share_one_run(self, store, tmp_path):
        start, results = SPAWN.Barrier(3), SPAWN.Queue()
        children = [SPAWN.Process(target=build_in_child, args=(store.root, start, results)) for _ in range(3)]
        for child in children:
            child.start()
        artifacts: list[Artifact] = [results.get(timeout=60) for _ in children]
        for child in children:
            child.join()
        assert (tmp_path / "runs.txt").read_text() == "run\n"
        assert sorted(artifact.cached for artifact in artifacts) == [False, True, True]
        assert all(replace(artifact, cached=True) == store.find(KEY) for artifact in artifacts)

    def test_kill_frees_the_waiting_and_leaves_only_scratch(self, store, tmp_path):
        child = SPAWN.Process(target=build_until_killed, args=(store.root,))
        child.start()
        while not (tmp_path / "reached").exists():
            assert child.is_alive()
            time.sleep(0.01)
        seen = []

        def make_rest(out, scratch):
            seen.append((list(out.iterdir()), (scratch / "step-40.txt").read_text()))
            make(out, scratch)

        waiting = threading.Thread(target=store.build, args=(KEY, make_rest))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert seen == []
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        waiting.join(10)
        assert seen == [([], "forty steps")]
        assert set(store.find(KEY).files) == {"adapter.bin", "frames/0.txt"}
        assert leftovers(store.root) == []

    def test_killed_run_leaves_nothing_to_find(self, store, tmp_path):
        child = SPAWN.Process(target=build_until_killed, args=(store.root,))
        child.start()
        while not (tmp_path / "reached").exists():
            assert child.is_alive()
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert (store.root / "building" / KEY.digest / "half.bin").exists()
        assert store.find(KEY) is None
        assert store.explain(KEY) == "never computed"

    def test_never_two_at_once_and_readers_see_whole_artifacts(self, store, tmp_path):
        """Each lock file is deleted by its holder; the order of waiting must survive that."""
        failures, done = [], threading.Event()

        def alone(out, scratch):
            os.close(os.open(tmp_path / "inside", os.O_CREAT | os.O_EXCL))
            make(out, scratch)
            (tmp_path / "inside").unlink()

        def guarded(work):
            try:
                work()
            except (OSError, StoreError, AssertionError) as error:
                failures.append(error)

        def write():
            for _ in range(10):
                store.build(KEY, alone, force=True)

        def read():
            while not done.is_set():
                found = store.find(KEY)
                assert found is None or set(found.files) == {"adapter.bin", "frames/0.txt"}

        writers = [threading.Thread(target=guarded, args=(write,)) for _ in range(4)]
        reader = threading.Thread(target=guarded, args=(read,))
        for thread in (*writers, reader):
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        reader.join()
        assert failures == []
        assert leftovers(store.root) == []


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


class TestFaultyDisk:
    def test_root_that_is_a_file(self, tmp_path):
        (tmp_path / "store").write_text("a file")
        store = Store(tmp_path / "store")
        for use in (lambda: store.find(KEY), lambda: store.build(KEY, make), lambda: store.explain(KEY)):
            with pytest.raises(StoreError, match=r"a file stands where a folder is expected.*--store"):
                use()

    def test_read_only_store_can_be_read(self):
        folder = Path(tempfile.mkdtemp())  # pytest's own temporary folder is closed to other users
        store = Store(folder)
        try:
            made = store.build(KEY, make)
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o555 if path.is_dir() else 0o444)
            with unprivileged():
                assert store.find(KEY) == store.build(KEY, make_until_killed) == replace(made, cached=True)
                store.verify(made)
                with pytest.raises(StoreError, match=r"permission is missing.*--store"):
                    store.build(replace(KEY, version=2), make)
        finally:
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755)
            shutil.rmtree(folder)

    def test_root_that_cannot_be_made(self):
        with unprivileged(), pytest.raises(StoreError, match="permission is missing"):
            Store(Path("/no-such-store")).build(KEY, make)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
    def test_full_disk_names_the_remedy(self, store):
        def fill(out, scratch):
            with open("/dev/full", "wb", buffering=0) as stream:
                stream.write(b"x")

        with pytest.raises(StoreError, match="the disk is full; free some space"):
            store.build(KEY, fill)
        assert store.find(KEY) is None

    def test_other_errors_of_the_stage_stay_what_they_are(self, store):
        with pytest.raises(FileNotFoundError):
            store.build(KEY, lambda out, scratch: (out / "absent").read_bytes())


def test_import_is_light():
    code = "import sys, effivmt.store; print(*sorted({'torch', 'numpy', 'pydantic', 'filelock'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
