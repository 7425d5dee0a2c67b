"""A Hugging Face hub of folders on loopback, which notes what is fetched from it."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from huggingface_hub import constants

WEIGHTS = ".safetensors"


class Hub:
    """Models by id, each with its revisions by name: (commit, folder). `fetched`: the files whose bytes were read."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, tuple[str, Path]]] = {}
        self.fetched: list[str] = []
        self.url = ""

    def publish(self, name: str, folder: Path, commit: str, *revisions: str) -> None:
        """Makes a folder a commit of a model, and the main branch and further revisions point to it."""
        for revision in (commit, "main", *revisions):
            self.models.setdefault(name, {})[revision] = (commit, folder)

    @property
    def weights(self) -> list[str]:
        """The files of weights that were fetched."""
        return [file for file in self.fetched if file.endswith(WEIGHTS)]


@contextmanager
def serve(cache: Path, patch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, which huggingface_hub asks in this process while the context lasts; its cache is the folder `cache`."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0]).strip("/").split("/")
            if path[:2] == ["api", "models"]:
                self._api("/".join(path[2:4]), *(path[4:6] or ("revision", "main")))
            else:
                self._file("/".join(path[:2]), path[3], "/".join(path[4:]))

        def _api(self, name: str, what: str, revision: str) -> None:
            if (found := self._find(name, revision)) is None:
                return
            commit, folder = found
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            if what == "tree":
                self._answer(json.dumps([_entry(folder, path) for path in files]).encode())
            else:
                siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in files]
                self._answer(json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode())

        def _file(self, name: str, revision: str, file: str) -> None:
            if (found := self._find(name, revision)) is None:
                return
            commit, folder = found
            content = (folder / file).read_bytes()
            if self.command == "GET":
                hub.fetched.append(file)
            self._answer(content, {"X-Repo-Commit": commit, "ETag": f'"{_oid(folder / file)}"'})

        def _find(self, name: str, revision: str) -> tuple[str, Path] | None:
            revisions = hub.models.get(name)
            if revisions is None or revision not in revisions:
                code = "RepoNotFound" if revisions is None else "RevisionNotFound"
                self._answer(b"", {"X-Error-Code": code}, 404)
                return None
            return revisions[revision]

        def _answer(self, content: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _oid(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == WEIGHTS:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # Git's


def _entry(folder: Path, path: Path) -> dict[str, object]:
    """A file as the hub's API lists it: weights are in Git LFS."""
    size, oid = path.stat().st_size, _oid(path)
    entry = {"type": "file", "path": path.relative_to(folder).as_posix(), "size": size, "oid": oid}
    return entry | ({"lfs": {"oid": oid, "size": size, "pointerSize": 100}} if path.suffix == WEIGHTS else {})
