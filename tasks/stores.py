"""The store of a run: a folder, and the remote store that EFFIVMT_REMOTE names."""

import os
import sys
from functools import cache
from pathlib import Path

from effivmt.errors import printable
from effivmt.store import Store
from effivmt.store.remote import Remote

REMOTE = "EFFIVMT_REMOTE"


def open_store(root: Path) -> Store:
    """The store in a folder; ParamsError where EFFIVMT_REMOTE is no URL that can be used."""
    return Store(root, open_remote())


def open_remote() -> Remote | None:
    """The remote store of the environment, whose faults are told on stderr; None where it names none."""
    url = os.environ.get(REMOTE)
    return _remote(url) if url else None


@cache
def _remote(url: str) -> Remote:
    return Remote(url, _tell)


def _tell(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)
