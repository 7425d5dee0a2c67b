"""Transfers in processes of their own."""

import multiprocessing
from multiprocessing.process import BaseProcess
from pathlib import Path

from harm import contents

from effivmt.catalog import Clip
from effivmt.config import Params
from effivmt.pipeline.api import transfer
from effivmt.pipeline.workspace import Workspace
from effivmt.store.store import Store

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["effivmt.pipeline.api", "effivmt.method.backbone", "effivmt.evaluation.measure"])


def run(params: Params, clip: Clip, store: Path, out: Path) -> None:
    """The work of a process."""
    transfer(Workspace(Store(store), params), clip, out)


def started(*arguments: object) -> BaseProcess:
    process = PROCESSES.Process(target=run, args=arguments)
    process.start()
    return process


def published(store: Path) -> dict[str, str]:
    """Digests of the files of all artifacts."""
    return {n: digest for n, digest in contents(store).items() if not n.startswith(("building/", "scratch/"))}
