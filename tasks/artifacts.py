"""What the page of a catalog's flow run shows at the Prefect server: progress, a table of the clips, the report."""

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from effivmt.catalog import Catalog
from effivmt.pipeline.catalog_run import Outcome

INTERVAL = 5.0
"""Seconds between two updates of the progress."""
PATIENCE = 5.0
"""Seconds that the server may take to answer."""
REPORT = "report.html"


class RunPage:
    """Writes the artifacts of the flow run that is at work; a server that takes none costs a warning, never the run."""

    def __init__(self, catalog: Catalog) -> None:
        """Shows no progress yet; artifacts of catalogs of the same name are versions of one another."""
        self._name = re.sub(r"[^a-z0-9]+", "-", catalog.path.stem.lower()).strip("-") or "catalog"
        self._total = len(catalog.clips)
        self._client = get_client(httpx_settings={"timeout": PATIENCE}, sync_client=True)
        self._shown = time.monotonic()
        self._progress = self._create("progress", "progress", 0.0, self._count([]))

    def update(self, outcomes: Sequence[Outcome]) -> None:
        """Moves the progress, but not at every clip where clips are quick."""
        if time.monotonic() - self._shown >= INTERVAL:
            self._move(outcomes)

    def close(self, outcomes: Sequence[Outcome], out: Path) -> None:
        """Ends the progress and adds the table, failures first, and the link where `out` has a report."""
        self._move(outcomes)
        names = ("clip", "status", "stage", "reason", "seconds")
        ordered = sorted(outcomes, key=lambda outcome: (outcome.status != "failed", outcome.clip))
        rows = [{name: getattr(outcome, name) for name in names} for outcome in ordered]
        self._create("clips", "table", json.dumps(rows), self._count(outcomes))
        report = (out / REPORT).resolve()
        if report.is_file():
            self._create("report", "markdown", f"[{report}]({report.as_uri()})", "The report of the run.")

    def _move(self, outcomes: Sequence[Outcome]) -> None:
        self._shown = time.monotonic()
        if (artifact := self._progress) is not None:
            done = 100.0 * len(outcomes) / max(1, self._total)
            update = ArtifactUpdate(data=done, description=self._count(outcomes))
            self._send(lambda: self._client.update_artifact(artifact, update))

    def _create(self, key: str, kind: str, data: object, description: str) -> UUID | None:
        """Id of the new artifact of the flow run; None where the server has not taken it."""
        fields = {"key": f"{self._name}-{key}", "type": kind, "data": data, "description": description}
        artifact = ArtifactCreate(**fields, flow_run_id=flow_run.id)
        return self._send(lambda: self._client.create_artifact(artifact).id)

    def _send(self, request: Callable[[], UUID | None]) -> UUID | None:
        """The request's answer; None, and a warning, where the server gives none at the first try."""
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                return request()
        except (HTTPError, PrefectException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            get_run_logger().warning("the server has not taken an artifact: %s", reason)
            return None

    def _count(self, outcomes: Sequence[Outcome]) -> str:
        failed = sum(outcome.status == "failed" for outcome in outcomes)
        return f"{len(outcomes)} of {self._total} clips, {failed} failed"
