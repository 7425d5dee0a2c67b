"""A Dask cluster that processes clips, one per worker slot, over a store that all hosts share."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from effivmt.errors import EffiVMTError, ParamsError
from effivmt.store.disk_errors import write_errors
from effivmt.versions import __version__

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture
    from prefect.task_runners import TaskRunner

TIMEOUT = "15s"
"""How long a scheduler may take to answer."""


@dataclass(frozen=True)
class Cluster:
    """The scheduler of a Dask cluster (`tcp://host:8786`), and the Dask resource of which every clip takes one."""

    address: str
    resource: str = ""

    def check(self, folders: Sequence[Path]) -> None:
        """Raises EffiVMTError unless there are workers with this EffiVMT version, the resource and the folders.

        Creates the folders. Workers that join later are not checked.
        """
        from distributed import Client

        try:
            client = Client(self.address, timeout=TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise EffiVMTError(
                f"no Dask scheduler answers at {self.address or 'no address'} ({_line(error)}); start one with "
                "`dask scheduler` and give its address, such as tcp://host:8786, with --address"
            ) from error
        with client:
            workers = client.scheduler_info(n_workers=-1)["workers"]
            if not workers:
                start = f"dask worker {self.address} --nthreads 1"
                raise EffiVMTError(f"the Dask cluster at {self.address} has no workers; start some: `{start}`")
            if self.resource and not any(self.resource in worker["resources"] for worker in workers.values()):
                start = f'dask worker {self.address} --nthreads 1 --resources "{self.resource}=1"'
                raise EffiVMTError(
                    f"no worker at {self.address} has the resource {self.resource}; start some: `{start}`"
                )
            marks = [folder / f".shared-{uuid.uuid4().hex}" for folder in folders]
            try:
                for mark in marks:
                    with write_errors(mark.parent):
                        mark.parent.mkdir(parents=True, exist_ok=True)
                        mark.touch()
                seen = client.run(_report, [str(mark) for mark in marks], on_error="return")
            finally:
                for mark in marks:
                    with suppress(FileNotFoundError, NotADirectoryError):  # the folder could not be created
                        mark.unlink()
        for worker, found in seen.items():
            _check_worker(worker, found, folders)

    def task_runner(self) -> TaskRunner[Any]:
        """The task runner of a flow whose tasks run on the cluster."""
        import dask
        from prefect_dask import DaskTaskRunner

        resources = {self.resource: 1} if self.resource else {}

        class SlotTaskRunner(DaskTaskRunner):
            """Prefect's runner; every task asks for the resource."""

            def submit(self, *args: Any, **kwargs: Any) -> Any:
                with dask.annotate(resources=resources):
                    return super().submit(*args, **kwargs)

        return SlotTaskRunner(address=self.address)


def choose_cluster(runner: str, address: str, resource: str) -> Cluster | None:
    """The cluster that the options ask for, None for this process; ParamsError where they contradict each other."""
    if runner != "dask":
        if address or resource:
            raise ParamsError(f"--{'address' if address else 'resource'} is for a Dask cluster: add --runner dask")
        return None
    if not address:
        raise ParamsError("--runner dask needs the scheduler's address: --address tcp://host:8786")
    return Cluster(address, resource)


def release(future: PrefectFuture) -> None:
    """Lets a cluster forget a task whose result is here; otherwise it would run again if the worker died."""
    with suppress(AttributeError):  # a thread's future has nothing to release
        future.wrapped_future.release()  # type: ignore[attr-defined]  # of Dask's futures, whose class is not public


class _WorkerReport(TypedDict):
    version: str
    seen: list[bool]


def _report(marks: list[str]) -> _WorkerReport:
    """What a worker reports: its EffiVMT version, and which of the files it sees."""
    return {"version": __version__, "seen": [os.path.exists(mark) for mark in marks]}


def _check_worker(worker: str, found: _WorkerReport | Exception, folders: Sequence[Path]) -> None:
    """Raises EffiVMTError for a worker that cannot process clips."""
    if isinstance(found, Exception):
        raise EffiVMTError(f"Dask worker {worker} cannot run EffiVMT ({_line(found)}); install it there")
    if found["version"] != __version__:
        raise EffiVMTError(
            f"Dask worker {worker} has EffiVMT {found['version']}, this process {__version__}; install the same"
        )
    for folder, seen in zip(folders, found["seen"], strict=True):
        if not seen:
            raise EffiVMTError(
                f"Dask worker {worker} does not see {folder}; mount it at the same path on all hosts, or choose a "
                "shared folder with --store and --out"
            )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
