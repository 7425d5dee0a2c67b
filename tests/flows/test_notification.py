"""The recipe of docs/operations.md that tells a webhook of a failed night, over a real Prefect server."""

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from os import environ
from pathlib import Path

import pytest
from services import prefect_server, until

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"


class _Hook(BaseHTTPRequestHandler):
    """Keeps what is posted to it."""

    received: list[dict[str, str]] = []  # noqa: RUF012  (one hook a test run)

    def do_POST(self) -> None:
        self.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_failed_night_is_posted(tmp_path: Path) -> None:
    server = HTTPServer(("127.0.0.1", 0), _Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (recipe,) = re.findall(r"```python\n(.*?Automation\(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert "https://hooks.example.com/night" in recipe
    recipe = recipe.replace("https://hooks.example.com/night", f"http://127.0.0.1:{server.server_port}")
    night = f"from effivmt_flows.nightly import nightly; nightly({str(tmp_path / 'films.csv')!r}, return_state=True)"
    with prefect_server(tmp_path) as environment:
        for code in (recipe, night):
            ended = subprocess.run(
                [sys.executable, "-c", code],
                env=environ | environment,
                capture_output=True,
                text=True,
                check=False,
                cwd=tmp_path,
            )
            assert ended.returncode == 0, ended.stderr
        until(lambda: _Hook.received, 120, tmp_path / "server.log")
    server.shutdown()
    (message,) = _Hook.received
    assert re.match(r"films\.csv \d{4}-\d\d-\d\d \d\d:\d\d: catalog .*films\.csv cannot be read", message["text"])
    assert "films.csv cannot be read" in ended.stderr  # `effivmt serve` shows it, too
