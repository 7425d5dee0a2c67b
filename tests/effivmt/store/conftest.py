"""An empty store."""

import pytest

from effivmt.store.store import Store


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")
