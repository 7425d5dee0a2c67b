"""`EFFIVMT_REMOTE` as a user sets it: a fresh host fetches what another has computed, and what is new is published."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Ended, effivmt

from effivmt.pipeline.stages import STAGES
from effivmt_flows.cli.doctor import examine


def test_a_fresh_host_goes_on_where_another_was(
    project: Path,
    transferred: Ended,
    transfer_arguments: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EFFIVMT_REMOTE", f"file://{tmp_path / 'shared'}")
    first = effivmt("store", "push", "--store", project / "store")
    assert first.code == 0 and "artifacts published" in first.out and "it had 0" in first.out, first.err
    again = effivmt("store", "push", "--store", project / "store")
    assert again.code == 0 and again.out.startswith("0 of ")

    fresh = transfer_arguments("--out", tmp_path / "out")
    fresh[fresh.index("--store") + 1] = str(tmp_path / "store")
    ended = effivmt(*fresh)
    assert ended.code == 0 and ended.outcomes() == dict.fromkeys(STAGES, "hit"), ended.err
    name = "zigzag/adapter/temporal.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (project / "out" / name).read_bytes()

    shutil.rmtree(tmp_path / "shared")
    shutil.rmtree(tmp_path / "store" / "evaluate")
    assert effivmt(*fresh).outcomes() == dict.fromkeys(STAGES, "hit") | {"evaluate": "done"}
    assert len(list((tmp_path / "shared" / "evaluate").iterdir())) == 1  # what is made is published


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("", 2, "EFFIVMT_REMOTE names no remote store"),
        ("/a/folder", 2, "is no URL; expected one such as s3://"),
        ("file:///dev/null/folder", 1, "cannot be used"),
    ],
)
@pytest.mark.slow
def test_a_wrong_remote_is_one_line(
    url: str, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFFIVMT_REMOTE", url)
    ended = effivmt("store", "push", "--store", tmp_path / "store")
    assert ended.code == code and said in ended.err and ended.err.count("\n") == 1
    found = {check.name: check for check in examine(None, [], tmp_path / "store")}
    assert not url or (not found["remote"].ok and said in found["remote"].text)
