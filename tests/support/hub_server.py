"""A local double of the Hugging Face Hub's HTTP API, as far as huggingface_hub 1.0 to 2.4 use it for models.

It has branches, commits, private and gated repositories, LFS with redirects to another path as to a CDN, pull requests,
and refuses what the hub refuses. It has no Xet; clients upload over LFS without it (``HF_HUB_DISABLE_XET``).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_writer"
READ_TOKEN = "hf_reader"
_LFS_FROM = 100_000  # bytes


@dataclass
class Repository:
    """A repository: its commits by id, and where its branches and pull requests point."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str = "", ref: str = "main") -> str:
        """Make a commit with exactly these files, and return its id."""
        self.messages.append(message)
        told = json.dumps([len(self.messages), message, sorted(files)]).encode()
        name = hashlib.sha1(told).hexdigest()
        self.commits[name] = dict(files)
        self.refs[ref] = name
        return name

    def find(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.refs["main"]]


@dataclass
class Hub:
    """The hub.

    Attributes:
        url: where it listens.
        repositories: by ``OWNER/NAME``.
        blobs: content of LFS objects by SHA-256.
        requests: method and path of each request.
        before: called with the method and path before each request; what it returns is sent as an error.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[str, str], int | None] = lambda method, path: None

    def variables(self, home: str, token: str | None = TOKEN) -> dict[str, str]:
        """Environment variables of a client."""
        own = {"HF_ENDPOINT": self.url, "HF_HOME": home, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return {**own, "HF_TOKEN": token} if token else own


class _Refused(Exception):  # noqa: N818
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        split = urlsplit(self.path)
        self.hub.requests.append((self.command, split.path))
        try:
            status = self.hub.before(self.command, split.path)
            if status is not None:
                raise _Refused(status)
            self._route(split.path, split.query, body)
        except _Refused as e:
            self._send(e.status, b"{}", **{"X-Error-Code": e.code, "X-Error-Message": e.message})

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_json(self, content: object, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def _route(self, path: str, query: str, body: bytes) -> None:
        for pattern, method in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found:
                getattr(self, method)(
                    *map(unquote, found.groups()), *([query] if method == "commit" else []), body=body
                )
                return
        raise _Refused(404)

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _require_writer(self) -> None:
        if self._token() != TOKEN:
            raise _Refused(403 if self._token() else 401, message="Invalid credentials in Authorization header")

    def _repository(self, name: str) -> Repository:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self._token() not in (TOKEN, READ_TOKEN)):
            raise _Refused(404 if self._token() else 401, "RepoNotFound")
        if found.gated and self._token() != TOKEN:
            raise _Refused(403, "GatedRepo")
        return found

    def _state(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        repository = self._repository(name)
        commit = repository.find(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound")
        return commit, repository.commits[commit]

    def create(self, body: bytes) -> None:
        self._require_writer()
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "somebody-else":
            raise _Refused(403, message="You don't have the rights to create a model under this namespace")
        if name in self.hub.repositories:
            self._send_json({"url": f"{self.hub.url}/{name}", "id": name}, 409)
            return
        made = self.hub.repositories[name] = Repository(
            private=bool(asked.get("private")) or asked.get("visibility") == "private"
        )
        made.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self._send_json({"url": f"{self.hub.url}/{name}", "id": name})

    def validate(self, body: bytes) -> None:
        self._send_json({"errors": [], "warnings": []})

    def info(self, name: str, revision: str | None = None, body: bytes = b"") -> None:
        commit, files = self._state(name, revision or "main")
        siblings = [{"rfilename": path} for path in files]
        self._send_json(
            {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": [], "private": False}
        )

    def tree(self, name: str, revision: str, body: bytes) -> None:
        _, files = self._state(name, revision)
        self._send_json([{"type": "file", "path": p, "size": len(c), "oid": _git_hash(c)} for p, c in files.items()])

    def preupload(self, name: str, revision: str, body: bytes) -> None:
        self._require_writer()
        _, files = self._state(name, revision)
        told = []
        for file in json.loads(body)["files"]:
            there = files.get(file["path"])
            lfs = file["size"] >= _LFS_FROM
            oid = None if there is None else hashlib.sha256(there).hexdigest() if lfs else _git_hash(there)
            mode = "lfs" if lfs else "regular"
            told.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send_json({"files": told})

    def lfs_batch(self, name: str, body: bytes) -> None:
        self._require_writer()
        objects: list[dict[str, Any]] = []
        for wanted in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}
            more = {} if wanted["oid"] in self.hub.blobs else {"actions": upload}
            objects.append({**wanted, **more})
        self._send_json({"transfer": "basic", "objects": objects})

    def lfs(self, oid: str, body: bytes) -> None:
        if self.command != "PUT":
            self._send(200, self.hub.blobs[oid])
            return
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refused(400)
        self.hub.blobs[oid] = body
        self._send(200)

    def commit(self, name: str, revision: str, query: str, body: bytes) -> None:
        self._require_writer()
        head, there = self._state(name, revision)
        repository, files = self.hub.repositories[name], dict(there)
        header: dict[str, Any] = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                header = value
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            else:
                del files[value["path"]]
        if header.get("parentCommit") not in (None, head):
            raise _Refused(412, message="A commit has happened since. Please refresh and try again.")
        number = 1 + sum(ref.startswith("refs/pr/") for ref in repository.refs)
        ref = f"refs/pr/{number}" if "create_pr=1" in query else revision
        made = repository.commit(files, header["summary"], ref)
        page = f"{self.hub.url}/{name}/discussions/{number}" if ref != revision else None
        url = f"{self.hub.url}/{name}/commit/{made}"
        self._send_json({"success": True, "commitOid": made, "commitUrl": url, "pullRequestUrl": page})

    def resolve(self, name: str, revision: str, path: str, body: bytes) -> None:
        commit, files = self._state(name, revision)
        if path not in files:
            self._send(404, b"", **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        content = files[path]
        if len(content) < _LFS_FROM:
            self._send(200, content, **{"X-Repo-Commit": commit, "ETag": f'"{_git_hash(content)}"'})
            return
        oid = hashlib.sha256(content).hexdigest()
        self.hub.blobs[oid] = content
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{oid}"'}
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
        self._send(302, b"", **{"X-Repo-Commit": commit, "Location": f"{elsewhere}/lfs/{oid}", **linked})


_NAME = r"([^/]+/[^/]+)"
_ROUTES = (
    (r"/api/repos/create", "create"),
    (r"/api/validate-yaml", "validate"),
    (rf"/api/models/{_NAME}/preupload/([^/]+)", "preupload"),
    (rf"/api/models/{_NAME}/commit/([^/]+)", "commit"),
    (rf"/api/models/{_NAME}/tree/([^/]+)", "tree"),
    (rf"/api/models/{_NAME}/revision/([^/]+)", "info"),
    (rf"/api/models/{_NAME}", "info"),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    (rf"/{_NAME}/resolve/([^/]+)/(.+)", "resolve"),
    (r"/lfs/([0-9a-f]{64})", "lfs"),
)


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a hub on a free port of this machine."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the client in this process asks, as one who may write; its cache is in ``tmp_path / "hf"``."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with running_hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf/hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running
