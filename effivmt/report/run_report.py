"""`OUT/report.html`, the page of a catalog run; written only where it is out of date."""

import re
from pathlib import Path

from effivmt.report.run_record import read_run
from effivmt.store.disk_errors import write_errors
from effivmt.store.files import atomic_write

PAGE = "report.html"

_MADE_OF = re.compile(rb'<meta name="made-of" content="([0-9a-f]{64})">')


def write_run_report(out: Path) -> Path:
    """Brings the page of the run in `out` up to date, from the files in `out` alone; returns its path.

    After a run that changed nothing the page stays as it is, with the times of the run that wrote it. Raises
    EffiVMTError where `out` holds no run or cannot be written.
    """
    page, record = out / PAGE, read_run(out)
    if _made_of(page) != record.digest:
        from effivmt.report.run_page import render_run

        with write_errors(page), atomic_write(page) as temporary:
            temporary.write_text(render_run(out, record), encoding="utf-8")
    return page


def _made_of(page: Path) -> str | None:
    """The digest in a page's head."""
    try:
        with page.open("rb") as file:
            found = _MADE_OF.search(file.read(1024))
    except FileNotFoundError:
        return None
    return found and found[1].decode("ascii")
