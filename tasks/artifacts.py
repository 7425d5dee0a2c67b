"""Prefect artifacts of a catalog's flow run: its progress, a table of the clips, and the report."""

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
from effivmt.pipeline.outcomes import ClipOutcome
from effivmt_tasks.run_markdown import run_markdown

INTERVAL = 5.0
"""Seconds between two updates of the progress."""
TIMEOUT = 5.0
"""Seconds that the server may take to answer."""


class RunArtifacts:
    """Writes the artifacts of the current flow run; a server that refuses them costs a warning, never the run."""

    def __init__(self, catalog: Catalog) -> None:
        """Creates the progress artifact; artifacts of catalogs with the same name are versions of one another."""
        self._name = re.sub(r"[^a-z0-9]+", "-", catalog.path.stem.lower()).strip("-") or "catalog"
        self._file = catalog.path.name
        self._total = len(catalog.clips) + len({fault.clip for fault in catalog.faults})
        self._client = get_client(httpx_settings={"timeout": TIMEOUT}, sync_client=True)
        self._shown = time.monotonic()
        self._progress = self._create("progress", "progress", 0.0, self._count([]))

    def update(self, outcomes: Sequence[ClipOutcome]) -> None:
        """Updates the progress, at most once per `INTERVAL`."""
        if time.monotonic() - self._shown >= INTERVAL:
            self._move(outcomes)

    def close(self, outcomes: Sequence[ClipOutcome], out: Path) -> None:
        """Ends the progress and adds the table, failures first, and the report, readable where `out` is not."""
        self._move(outcomes)
        names = ("clip", "status", "stage", "reason", "seconds")
        ordered = sorted(outcomes, key=lambda outcome: (outcome.status != "failed", outcome.clip))
        rows = [{name: getattr(outcome, name) for name in names} for outcome in ordered]
        self._create("clips", "table", json.dumps(rows), self._count(outcomes))
        text = run_markdown(f"{self._file}: {self._count(outcomes)}", ordered, out)
        self._create("report", "markdown", text, "The report of the run.")

    def _move(self, outcomes: Sequence[ClipOutcome]) -> None:
        self._shown = time.monotonic()
        if (artifact := self._progress) is not None:
            done = 100.0 * len(outcomes) / max(1, self._total)
            update = ArtifactUpdate(data=done, description=self._count(outcomes))
            self._send(lambda: self._client.update_artifact(artifact, update))

    def _create(self, key: str, kind: str, data: str | float, description: str) -> UUID | None:
        """Id of the new artifact of the flow run; None where the server did not accept it."""
        artifact = ArtifactCreate(
            key=f"{self._name}-{key}",
            type=kind,
            data=data,
            description=description,
            flow_run_id=UUID(flow_run.id),
        )
        return self._send(lambda: self._client.create_artifact(artifact).id)

    def _send(self, request: Callable[[], UUID | None]) -> UUID | None:
        """The answer to the request; None, and a warning, where the first try fails."""
        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
                return request()
        except (HTTPError, PrefectException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            get_run_logger().warning("the server did not accept an artifact: %s", reason)
            return None

    def _count(self, outcomes: Sequence[ClipOutcome]) -> str:
        failed = sum(outcome.status == "failed" for outcome in outcomes)
        return f"{len(outcomes)} of {self._total} clips, {failed} failed"
