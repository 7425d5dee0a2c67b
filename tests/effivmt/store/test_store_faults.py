"""Damage, other processes, kills and faulty disks: never half a result, never two makers at once."""

import os
import pickle
import shutil
import signal
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from storing import (
    KEY,
    SPAWN,
    build_in_child,
    flip,
    leftovers,
    make,
    make_until_killed,
    started_until_killed,
    unprivileged,
)

from effivmt.errors import DamageError, DiskFullError, EffiVMTError, StoreError
from effivmt.store.artifact import Artifact
from effivmt.store.locks import locked
from effivmt.store.store import Store


class TestDamage:
    def test_deleted_file_is_rebuilt(self, store):
        artifact = store.build(KEY, make)
        artifact.file("frames/0.txt").unlink()
        assert store.find(KEY) is None
        assert store.explain(KEY) == "damaged: frames/0.txt is missing"
        with pytest.raises(DamageError, match=r"frames/0\.txt is missing: it is dropped, and made again"):
            artifact.file("frames/0.txt")
        assert store.explain(KEY) == "damaged: artifact.json is missing or unreadable"
        made = store.build(KEY, make)
        assert not made.cached and made.file("frames/0.txt").read_text() == "first frame"

    def test_short_file_is_rebuilt(self, store):
        os.truncate(store.build(KEY, make).file("adapter.bin"), 100)
        assert store.find(KEY) is None
        assert store.explain(KEY) == "damaged: adapter.bin has 100 bytes of 10240"
        assert store.build(KEY, make).file("adapter.bin").stat().st_size == 10240

    @pytest.mark.parametrize("settled", [False, True], ids=["just made", "checked before"])
    def test_a_flipped_bit_is_seen_by_whoever_opens_the_file(self, store, settled):
        path = store.build(KEY, make).file("adapter.bin")
        if settled:
            os.utime(path, (0, 0))
            assert store.find(KEY).file("adapter.bin") == path
        flip(path, 5000)
        assert store.find(KEY)  # its size is right
        with pytest.raises(DamageError, match=r"adapter\.bin has changed \(sha256 \w{12}, expected \w{12}\)"):
            store.find(KEY).file("adapter.bin")
        assert store.find(KEY) is None
        assert store.build(KEY, make).file("adapter.bin").read_bytes() == bytes(range(256)) * 40

    def test_a_folder_is_given_out_whole_or_not_at_all(self, store):
        artifact = store.build(KEY, make)
        assert artifact.folder("frames") == artifact.path / "frames"
        with pytest.raises(StoreError, match="lists no folder 'fram'"):
            artifact.folder("fram")
        flip(artifact.path / "frames" / "0.txt", 3)
        with pytest.raises(DamageError, match=r"frames/0\.txt has changed"):
            artifact.folder("frames")

    def test_what_another_process_has_made_again_stays(self, store):
        old = store.build(KEY, make)
        store.build(KEY, lambda out, scratch: (out / "adapter.bin").write_bytes(b"other"), force=True)
        with pytest.raises(DamageError):
            old.file("adapter.bin")
        assert store.find(KEY).file("adapter.bin").read_bytes() == b"other"

    @pytest.mark.parametrize("where", ["", "artifact.json", "adapter.bin", "frames", "frames/0.txt"])
    @pytest.mark.parametrize("stand_in", ["a file", "a folder", "a link", "a pipe"])
    def test_what_stands_in_the_place_of_another_thing_is_made_again(self, store, tmp_path, where, stand_in):
        artifact = store.build(KEY, make)
        path = artifact.path / where
        path.rename(tmp_path / "moved")
        if stand_in == "a file":
            path.write_bytes(b"x")
        elif stand_in == "a folder":
            path.mkdir()
        elif stand_in == "a link":
            path.symlink_to(tmp_path / "moved")
        else:
            os.mkfifo(path)
        if (where, stand_in) == ("frames", "a link"):
            assert store.find(KEY).folder("frames")  # every file in it is checked
            return
        assert store.find(KEY) is None and store.explain(KEY).startswith("damaged: ")
        if where and where != "artifact.json":
            with pytest.raises(DamageError):
                artifact.file("frames/0.txt" if where == "frames" else where)
        made = store.build(KEY, make)
        assert not made.cached and {name: made.file(name) for name in made.files}
        assert leftovers(store.root) == []

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

    def test_the_error_reaches_other_processes_whole(self, tmp_path):
        error = DamageError("heads", tmp_path / "heads.parquet", "is missing")
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.stage, again.path, again.fault) == (str(error), error.stage, error.path, error.fault)


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

    def test_kill_frees_the_waiting_and_leaves_only_scratch(self, store):
        child = started_until_killed(store.root)
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

    def test_killed_run_leaves_nothing_to_find(self, store):
        child = started_until_killed(store.root)
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
                assert made.file("adapter.bin").read_bytes()
                with pytest.raises(StoreError, match=r"permission is missing.*--store"):
                    store.build(replace(KEY, version=2), make)
            (made.path / "adapter.bin").chmod(0o644)
            (made.path / "adapter.bin").write_bytes(b"x" * 10240)
            with unprivileged(), pytest.raises(StoreError, match=r"has changed .* cannot be dropped: .*permission is"):
                store.find(KEY).file("adapter.bin")
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

        with pytest.raises(DiskFullError, match="the disk is full; free some space"):
            store.build(KEY, fill)
        assert store.find(KEY) is None

    def test_full_disk_is_told_from_the_text_of_a_library(self, store):
        """As that of safetensors, whose error has no error number, under one of ours."""

        def fill(out, scratch):
            try:
                raise RuntimeError("I/O error: No space left on device (os error 28)")
            except RuntimeError as error:
                (scratch / "step-40.txt").write_text("forty steps")
                raise EffiVMTError("the video cannot be written") from error

        with pytest.raises(DiskFullError, match="the disk is full; free some space"):
            store.build(KEY, fill)
        assert leftovers(store.root) == [f"scratch/{KEY.digest}"]  # a rerun goes on

    def test_other_errors_of_the_stage_stay_what_they_are(self, store):
        with pytest.raises(FileNotFoundError):
            store.build(KEY, lambda out, scratch: (out / "absent").read_bytes())


class TestLeftovers:
    def test_an_error_that_comes_again_leaves_no_checkpoint(self, store):
        def diverge(out, scratch):
            (scratch / "step-40.txt").write_text("forty steps")
            raise EffiVMTError("diverged")

        with pytest.raises(EffiVMTError, match="diverged"):
            store.build(KEY, diverge)
        assert leftovers(store.root) == []

    def test_what_killed_runs_of_other_keys_left_goes_in_time(self, store):
        for folder in ("building/old", "building/old.old", "scratch/old", "scratch/new", "scratch/held"):
            (store.root / folder).mkdir(parents=True)
            (store.root / folder / "file").touch()
        for path in (*store.root.glob("scratch/old*/*"), *store.root.glob("scratch/held*/*")):
            os.utime(path, (0, 0))
        for folder in ("old", "held"):
            os.utime(store.root / "scratch" / folder, (0, 0))
        with locked(store.root, "held"):
            store.build(KEY, make)
            assert sorted(leftovers(store.root)) == ["locks/held.lock", "scratch/held", "scratch/new"]

    @pytest.mark.parametrize("stand_in", ["file", "link"])
    def test_what_stands_in_the_place_of_the_scratch_folder_goes(self, store, tmp_path, stand_in):
        (store.root / "scratch").mkdir(parents=True)
        path = store.root / "scratch" / KEY.digest
        path.touch() if stand_in == "file" else path.symlink_to(tmp_path)
        assert not store.build(KEY, make).cached
        assert leftovers(store.root) == [] and tmp_path.exists()
