"""A copy of an artifact's file, wherever a user changes it, leaves the artifact as it is."""

import os
from pathlib import Path

from storing import KEY, flip, make

from effivmt.store.files import copy_verified
from effivmt.store.store import Store


def test_a_copy_that_is_changed_in_place_leaves_the_artifact_whole(store: Store, tmp_path: Path) -> None:
    artifact = store.build(KEY, make)
    copy_verified(artifact, "adapter.bin", tmp_path / "copy.bin")
    assert not os.path.samefile(artifact.path / "adapter.bin", tmp_path / "copy.bin")
    flip(tmp_path / "copy.bin", 5)
    assert artifact.file("adapter.bin").read_bytes() == bytes(range(256)) * 40
    copy_verified(artifact, "adapter.bin", tmp_path / "copy.bin")
    assert (tmp_path / "copy.bin").read_bytes() == bytes(range(256)) * 40
