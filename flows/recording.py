"""What a run writes, told to MLflow; needs no engine."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from effivmt.catalog import Catalog, read_catalog
from effivmt.errors import printable
from effivmt.pipeline.catalog_run import faulty_rows, write_run
from effivmt.pipeline.catalog_table import write_catalog_table
from effivmt.pipeline.outcomes import ClipOutcome, RunSummary
from effivmt_tasks.tracking.location import tracking_uri
from effivmt_tasks.tracking.recorder import Recorder


def record_clip(folder: Path) -> None:
    """Records the out folder of a single clip where MLflow lacks it; says on stderr what kept it from that."""
    recorder = Recorder(tracking_uri(), folder.parent)
    recorder.record(folder)
    say_unrecorded(recorder)


def record_hits(catalog: Catalog, hits: Sequence[ClipOutcome], out: Path) -> RunSummary:
    """Ends the run of a catalog whose good rows are all `hits`: writes its tables and page, records what MLflow lacks.

    EffiVMTError where `out` cannot be written.
    """
    start = time.perf_counter()
    write_catalog_table(read_catalog(catalog.path), out)
    recorder = Recorder(tracking_uri(), out, catalog.path.name)
    for hit in hits:
        recorder.record(out / hit.clip)
    seconds = time.perf_counter() - start + sum(hit.seconds for hit in hits)
    summary = write_run(read_catalog(catalog.path), [*faulty_rows(catalog), *hits], out, seconds)
    recorder.close()
    say_unrecorded(recorder)
    return summary


def say_unrecorded(recorder: Recorder) -> None:
    """Says on stderr what MLflow lacks, and why; nothing where it has everything."""
    if recorder.message:
        print(printable(recorder.message), file=sys.stderr)
