"""Damage, other processes, kills and faulty disks: never half a result, never two makers at once."""

import os
import shutil
import signal
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from storing import KEY, SPAWN, build_in_child, leftovers, make, make_until_killed, started_until_killed, unprivileged

from effivmt.errors import StoreError
from effivmt.store.artifact import Artifact
from effivmt.store.store import Store


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
