"""Records a run's folders in MLflow as they become ready, and later those that could not be recorded then.

A run never fails because of MLflow: its errors are counted and reported once, in `Recorder.message`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from effivmt.errors import EffiVMTError, in_one_line
from effivmt.pipeline.catalog_table import NAME as CATALOG
from effivmt.pipeline.outcomes import QUARANTINE, RUN
from effivmt.report.run_report import PAGE
from effivmt.store.digests import sha256_file
from effivmt.store.disk_errors import FULL_REMEDY, is_full
from effivmt.versions import code_version
from effivmt_tasks.tracking.folders import (
    TrackedRun,
    catalog_folders,
    clip_folders,
    is_pending,
    read_record,
    read_tracked,
    write_tracked,
)
from effivmt_tasks.tracking.location import check_reachable, public_uri

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


class Recorder:
    """Records the clips below one folder; those of a catalog as children of one run, which begins with the first."""

    def __init__(self, uri: str, out: Path, catalog: str = "", *, over: bool = False) -> None:
        """Connects on first use. catalog: its file's name, empty for a single clip; over: the catalog run has ended."""
        self.unrecorded: list[str] = []
        self.reason = ""
        self._uri, self._out, self._catalog, self._over = uri, out, catalog, over
        self._client: MlflowClient | None = None
        self._parent: str | None = None
        self._given_up = False

    @property
    def message(self) -> str:
        """What is missing in MLflow, why, and what to do; empty where nothing is missing."""
        if not self.reason:
            return ""
        count = len(self.unrecorded)
        what = f"{count} clip{'s are' if count > 1 else ' is'}" if count else "the summary of the run is"
        return f"{what} not recorded in MLflow ({self.reason}); later: effivmt sync {self._out}"

    def record(self, folder: Path) -> bool:
        """Records a clip's folder if it holds something new; returns whether MLflow now has it."""
        if not is_pending(folder, public_uri(self._uri)):
            return True
        done = not self._given_up and self._try(lambda client: self._record(client, folder))
        if not done:
            self.unrecorded.append(folder.name)
        return done

    def close(self) -> None:
        """Ends the catalog's run with its tables and counts; call it after run.json is written."""
        tracked = read_tracked(self._out) if self._catalog else None
        if self._parent is None or self._given_up or tracked is None or tracked.made_of:
            return
        self._try(lambda client: self._close(client, tracked))

    def resume(self) -> None:
        """Continues the catalog's run that is unfinished in MLflow, so that `close` can end it."""
        self._given_up = not self._try(self._begin)

    def _connect(self) -> "MlflowClient":
        if self._client is None:
            check_reachable(self._uri)
            from mlflow.tracking import MlflowClient  # takes seconds, which a run with nothing to record saves

            self._client = MlflowClient(tracking_uri=self._uri)
        return self._client

    def _try(self, work: Callable[["MlflowClient"], None]) -> bool:
        """Whether `work` succeeds; where MLflow no longer answers afterwards, nothing more is tried."""
        try:
            work(self._connect())
            return True
        except Exception as error:  # noqa: BLE001  (MLflow's faults are of many kinds, and none may end the run)
            reason = f"{FULL_REMEDY}: {error}" if is_full(error) else in_one_line(error)
            self.reason = self.reason or reason[:300]
        try:
            check_reachable(self._uri)
        except EffiVMTError:
            self._given_up = True
        return False

    def _record(self, client: "MlflowClient", folder: Path) -> None:
        from effivmt_tasks.tracking.runs import track_folder

        whole = False
        try:
            track_folder(client, self._uri, folder, lambda: self._parent_run(client))
            whole = True
        finally:
            tracked = read_tracked(folder)
            if not whole and tracked is not None and not tracked.made_of:
                self._mark_failed(client, tracked)

    def _parent_run(self, client: "MlflowClient") -> str | None:
        if self._catalog and self._parent is None:
            self._begin(client)
        return self._parent

    def _mark_failed(self, client: "MlflowClient", tracked: TrackedRun) -> None:
        from mlflow.exceptions import MlflowException

        with suppress(EffiVMTError, MlflowException):
            check_reachable(self._uri)  # a server that is gone would cost another wait
            client.set_terminated(tracked.run_id, "FAILED")

    def _begin(self, client: "MlflowClient") -> None:
        """Begins the catalog's run, or continues the one that the folder's tracked.json names."""
        from mlflow.exceptions import MlflowException

        from effivmt_tasks.tracking.dataset import catalog_dataset
        from effivmt_tasks.tracking.runs import experiment_id

        tracked = read_tracked(self._out)
        if tracked is not None and tracked.uri == public_uri(self._uri):
            ours = not tracked.made_of or (self._over and tracked.made_of == self._digest())
            if ours:
                with suppress(MlflowException):  # it may be gone
                    if client.get_run(tracked.run_id).info.lifecycle_stage == "active":
                        self._parent = tracked.run_id
                        return
        dataset = catalog_dataset(self._out / CATALOG, self._catalog)
        tags = {"catalog": self._catalog, "catalog_digest": dataset.dataset.digest, "code": code_version()}
        experiment = experiment_id(client, self._uri)
        run_id = client.create_run(experiment, run_name=self._catalog, tags=tags).info.run_id
        write_tracked(self._out, TrackedRun(public_uri(self._uri), run_id))
        client.log_inputs(run_id, [dataset])
        self._parent = run_id

    def _close(self, client: "MlflowClient", tracked: TrackedRun) -> None:
        from mlflow.entities import Metric

        record, now = read_record(self._out / RUN), int(time.time() * 1000)
        counts = [Metric(name, float(record[name]), now, 0) for name in ("done", "hit", "failed", "seconds")]
        client.log_batch(tracked.run_id, metrics=counts)
        for name in (RUN, CATALOG, QUARANTINE, PAGE):
            if (file := self._out / name).is_file():
                client.log_artifact(tracked.run_id, str(file))
        client.set_terminated(tracked.run_id, "FAILED" if record["failed"] else "FINISHED")
        write_tracked(self._out, TrackedRun(tracked.uri, tracked.run_id, self._digest()))

    def _digest(self) -> str:
        return sha256_file(self._out / RUN)


def sync(uri: str, out: Path) -> Iterator[tuple[Path, str]]:
    """Records every pending folder at or below `out`; yields each with what kept it from being recorded, or "".

    EffiVMTError where MLflow does not answer at all.
    """
    public = public_uri(uri)
    catalogs = set(catalog_folders(out))
    pending = [folder for folder in clip_folders(out) if is_pending(folder, public)]
    runs = {folder: read_tracked(folder) for folder in catalogs}
    unfinished = {folder for folder, run in runs.items() if run and run.uri == public and not run.made_of}
    groups: dict[Path, list[Path]] = {folder: [] for folder in sorted(unfinished)}
    for folder in pending:
        groups.setdefault(folder.parent if folder.parent in catalogs else folder, []).append(folder)
    if groups:
        check_reachable(uri)
    for root, members in groups.items():
        catalog = str(read_record(root / RUN)["catalog"]) if root in catalogs else ""
        recorder = Recorder(uri, root, catalog, over=True)
        if root in unfinished:
            recorder.resume()
        for folder in members:
            yield folder, "" if recorder.record(folder) else recorder.reason
        recorder.close()
        if root in unfinished or (recorder.reason and not recorder.unrecorded):
            yield root, recorder.reason
