"""The few answers of the Hugging Face hub that a download needs, on loopback."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/?]+)")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/?]+)")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>[^?]+)")


class Hub:
    """Repositories by id: branches and commits of folders. ``asked`` lists the requests."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Path]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.gated: set[str] = set()
        self.asked: list[str] = []
        self.endpoint = ""

    def push(self, repo: str, folder: Path, *, branch: str = "main") -> str:
        """Let a branch be this folder; returns its commit."""
        number = len(self.repos.get(repo, {}))
        commit = hashlib.sha1(f"{repo}{number}".encode()).hexdigest()
        self.repos.setdefault(repo, {})[commit] = folder
        self.branches.setdefault(repo, {})[branch] = commit
        return commit

    def commit(self, repo: str, revision: str) -> str | None:
        """The commit that a branch or commit means; None where there is none."""
        if revision in self.repos[repo]:
            return revision
        return self.branches[repo].get(revision)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers until the end of the block."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        return

    def _answer(self, *, body: bool) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        answers = {_INFO: self._info, _TREE: self._tree, _FILE: self._file}
        matches = ((pattern, pattern.match(self.path)) for pattern in answers)
        pattern, found = next(one for one in matches if one[1])
        answer = answers[pattern]
        repo = found["repo"]
        if repo not in self.hub.repos:
            return self._refuse(401, "RepoNotFound", body)
        if repo in self.hub.gated and pattern is _FILE:
            return self._refuse(403, "GatedRepo", body)
        commit = self.hub.commit(repo, found["revision"])
        if commit is None:
            return self._refuse(404, "RevisionNotFound", body)
        status, data, headers = answer(repo, commit, found.groupdict().get("name", ""))
        return self._send(status, data, {"X-Repo-Commit": commit, **headers}, body)

    def _info(self, repo: str, commit: str, _: str) -> tuple[int, bytes, dict[str, str]]:
        return 200, json.dumps({"id": repo, "sha": commit, "siblings": []}).encode(), {}

    def _tree(self, repo: str, commit: str, _: str) -> tuple[int, bytes, dict[str, str]]:
        folder = self.hub.repos[repo][commit]
        entries = [
            {
                "type": "file",
                "path": file.relative_to(folder).as_posix(),
                "size": file.stat().st_size,
                "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
            }
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        ]
        return 200, json.dumps(entries).encode(), {}

    def _file(self, repo: str, commit: str, name: str) -> tuple[int, bytes, dict[str, str]]:
        file = self.hub.repos[repo][commit] / name
        if not file.is_file():
            return 404, b"", {"X-Error-Code": "EntryNotFound"}
        data = file.read_bytes()
        return 200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'}

    def _refuse(self, status: int, code: str, body: bool) -> None:
        self._send(status, b"{}", {"X-Error-Code": code}, body)

    def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)
