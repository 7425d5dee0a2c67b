"""MLflow's server behind a certificate of one's own: it is asked as MLflow's own client asks it."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from effivmt.errors import EffiVMTError
from effivmt_tasks.tracking.location import check_reachable


class _Well(BaseHTTPRequestHandler):
    """Says that it is well; asks for a password elsewhere than at `/health`."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of localhost that nobody else has signed; its key is beside it."""
    folder = tmp_path_factory.mktemp("certificate")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    make = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names)
    subprocess.run([*make, "-keyout", "key.pem", "-out", "cert.pem"], cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def address(certificate: Path) -> Iterator[str]:
    """A server on loopback with that certificate."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Well)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE"])
def test_certificate_that_is_named_is_trusted(
    address: str, certificate: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(certificate))
    check_reachable(address)


def test_certificates_can_be_left_unchecked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    with pytest.warns(Warning, match="Unverified HTTPS"):
        check_reachable(address)


def test_certificate_that_nobody_knows_is_refused_with_the_remedy(address: str) -> None:
    with pytest.raises(EffiVMTError, match=r"CERTIFICATE_VERIFY_FAILED.*MLFLOW_TRACKING_SERVER_CERT_PATH$"):
        check_reachable(address)


def test_no_proxy_lies_before_loopback(address: str, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from effivmt_tasks import LOOPBACK

    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", LOOPBACK)
    check_reachable(address)
