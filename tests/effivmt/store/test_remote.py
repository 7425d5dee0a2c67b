"""A remote store is a second level: looked into, fetched from and published to, and never a reason for a run to end.

S3 is a real server of its protocol on loopback; `file://` is a folder, and `memory://` what fsspec keeps in memory.
"""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem
from storing import KEY, flip, leftovers, make

from effivmt.errors import ParamsError, StoreError
from effivmt.store import remote as remote_store
from effivmt.store.artifact import Key
from effivmt.store.record import RECORD, seal, unseal
from effivmt.store.remote import Remote
from effivmt.store.store import REMOTE, Store


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of an S3 server with the bucket `films`, which the environment names."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("DEFAULT_REGION", "us-east-1")):
            patch.setenv(f"AWS_{name}", value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        boto3.client("s3").create_bucket(Bucket="films")
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["s3", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty remote."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    MemoryFileSystem.store.clear()
    where = {"s3": f"s3://films/{tmp_path.name}", "file": f"file://{tmp_path / 'shared'}", "memory": "memory://shared"}
    return where[request.param]


@pytest.fixture
def host(tmp_path: Path, url: str) -> Callable[[str], tuple[Store, list[str]]]:
    """By name a host with an empty store over the remote, and what it is told."""

    def named(name: str) -> tuple[Store, list[str]]:
        told: list[str] = []
        return Store(tmp_path / name, Remote(url, told.append)), told

    return named


def refuse(out: Path, scratch: Path) -> None:
    raise AssertionError("it is made again")


def content(root: Path) -> dict[str, bytes]:
    """Every published file of a store, by name."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.glob("*/*/**/*") if path.is_file()}


def test_what_one_host_makes_another_fetches(host) -> None:
    (first, told), (second, told_too) = host("first"), host("second")
    made = first.build(KEY, make)
    assert second.find(KEY) is None and second.explain(KEY) == REMOTE
    fetched = second.build(KEY, refuse)
    assert not made.cached and fetched.cached and fetched.files == made.files and fetched.seconds == made.seconds
    assert content(second.root) == content(first.root) and leftovers(second.root) == []
    assert second.build(KEY, refuse).file("adapter.bin").read_bytes() == bytes(range(256)) * 40
    assert second.explain(KEY) == "hit" and told == told_too == []


def test_what_is_damaged_there_is_told_and_made_again(host) -> None:
    (first, _), (second, told), (third, told_third) = host("first"), host("second"), host("third")
    made = first.build(KEY, make)
    fs, root = first.remote._open()
    path = f"{root}/files/{made.files['adapter.bin']}"
    fs.pipe_file(path, b"\0" * fs.info(path)["size"])
    assert not second.build(KEY, make).cached
    (line,) = told
    assert "adapter.bin is damaged there: it is dropped, and made again" in line and "\n" not in line
    assert third.build(KEY, refuse).cached and told_third == []
    fs.rm_file(path)  # a file that is gone, and a record that is half there
    fs.pipe_file(f"{root}/spatial/{KEY.digest}.json", fs.cat_file(f"{root}/spatial/{KEY.digest}.json")[:-9])
    fourth, told_fourth = host("fourth")
    assert not fourth.build(KEY, make).cached and told_fourth == []
    assert host("fifth")[0].build(KEY, refuse).cached


def test_a_key_that_two_hosts_make_at_once_is_harmless_and_said(host) -> None:
    (first, _), (second, told) = host("first"), host("second")

    def other_bytes(out: Path, scratch: Path) -> None:
        first.build(KEY, make)  # the other host is quicker
        (out / "adapter.bin").write_bytes(b"rounded differently")

    mine = second.build(KEY, other_bytes)
    assert mine.file("adapter.bin").read_bytes() == b"rounded differently"
    assert len(told) == 1 and "another host has made" in told[0] and "each keeps its own" in told[0]
    third, _ = host("third")
    assert third.build(KEY, refuse).files == first.find(KEY).files


def test_force_replaces(host) -> None:
    (first, _), (second, told) = host("first"), host("second")
    first.build(KEY, make)

    def other(out: Path, scratch: Path) -> None:
        (out / "adapter.bin").write_bytes(b"other")

    assert second.build(KEY, other, force=True).files != first.find(KEY).files and told == []
    assert host("third")[0].build(KEY, refuse).files == second.find(KEY).files


def test_a_hostile_record_writes_nowhere_else(host, tmp_path: Path) -> None:
    first, _ = host("first")
    made = first.build(KEY, make)
    fs, root = first.remote._open()
    place = f"{root}/spatial/{KEY.digest}.json"
    record = unseal((made.path / RECORD).read_bytes())
    for number, name in enumerate(("../../../evil", "/tmp/evil", "a/../../evil", "", RECORD, "a\\..\\evil")):
        fs.pipe_file(place, seal(record | {"files": record["files"] | {name: record["files"]["adapter.bin"]}}))
        second, told = host(f"victim-{number}")
        assert not second.build(KEY, make).cached and told == []
    fs.pipe_file(place, seal(record | {"key": record["key"] | {"version": 2}}))
    assert not host("other")[0].build(KEY, make).cached
    assert not list(tmp_path.rglob("evil"))


def test_a_remote_that_is_gone_ends_no_run(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:  # a port that nobody listens at
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{probe.getsockname()[1]}")
    S3FileSystem.clear_instance_cache()  # it read the environment when it was made
    monkeypatch.setattr(remote_store, "PAUSE", 0.0)
    monkeypatch.setattr(remote_store, "TRIES", 2)
    told: list[str] = []
    store = Store(tmp_path / "store", Remote("s3://films/gone", told.append))
    other = Key("heads", 1, {}, {}, "b" * 64)
    assert not store.build(KEY, make).cached and not store.build(other, make).cached
    (line,) = told  # once, and not a second time for the next artifact
    assert line.startswith("remote store s3://films/gone does not answer (Could not connect")
    assert "going on without it" in line and "effivmt store push" in line and "\n" not in line
    with pytest.raises(StoreError, match="cannot be used"):
        store.remote.check()
    S3FileSystem.clear_instance_cache()


def test_what_is_not_transient_is_not_tried_again(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_store.time, "sleep", lambda _: pytest.fail("it waits for another try"))
    told: list[str] = []
    store = Store(tmp_path / "store", Remote("s3://nobodys/films", told.append))
    assert not store.build(KEY, make).cached
    assert len(told) == 1 and "does not answer" in told[0]


def test_what_is_transient_is_tried_again(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_store, "PAUSE", 0.0)
    told: list[str] = []
    store = Store(tmp_path / "store", Remote(url, told.append))
    fs, faults = type(store.remote._open()[0]), iter([TimeoutError("slow"), ConnectionResetError("reset")])
    put = fs.put_file

    def put_file(self, *arguments, **options):
        for fault in faults:
            raise fault
        return put(self, *arguments, **options)

    monkeypatch.setattr(fs, "put_file", put_file)
    store.build(KEY, make)
    assert told == [] and Store(tmp_path / "other", Remote(url, told.append)).build(KEY, refuse).cached


def test_what_is_damaged_here_is_not_published(host) -> None:
    store, _ = host("first")
    alone = Store(store.root)
    made = alone.build(KEY, make)
    flip(made.path / "adapter.bin", 3)
    assert not store.remote.publish(made.path) and not store.remote.has("spatial", KEY.digest)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("films", "is no URL"), ("s3://", "is no URL"), ("quux://films", "fsspec does not know quux://")],
)
def test_a_wrong_url_is_told_without_its_password(wrong: str, said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        Remote(wrong, print)
    assert "secret" not in Remote("ftp://user:secret@host/films", print).name
