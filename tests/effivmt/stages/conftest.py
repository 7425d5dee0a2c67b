"""A clip with one prompt, and its transfer."""

import pytest
from staging import Transfer, transfer

from effivmt.catalog import Clip
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store


@pytest.fixture
def clip(clip) -> Clip:
    """With one prompt."""
    return clip.model_copy(update={"prompts": clip.prompts[:1]})


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """One store for all tests here: what two of them share is made once. Each test changes params in its own way."""
    return Store(tmp_path_factory.mktemp("stages") / "store")


@pytest.fixture
def done(store, params, clip) -> Transfer:
    """The sample clip's transfer with the params of the fixture."""
    return transfer(Workspace(store, params), clip)
