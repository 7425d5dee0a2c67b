"""Content-addressed artifacts, their digests, and files that appear whole or not at all."""

from effivmt.store.artifact import Artifact, Key
from effivmt.store.store import DEFAULT_STORE, Store

__all__ = ["DEFAULT_STORE", "Artifact", "Key", "Store"]
