"""A hub on this machine: the part of its HTTP API that huggingface_hub uses to publish and to download."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

OWNER = "me"
LARGE = (".safetensors", ".parquet")
TOKEN = "hf" + "_" + "dummy"


def git_blob_id(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@dataclass
class Repository:
    """A repository: its files now, its visibility, and one entry for each commit."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[dict[str, Any]] = field(default_factory=list)

    @property
    def head(self) -> str:
        return hashlib.sha1(f"{len(self.commits)} {sorted(self.files.items())}".encode()).hexdigest()


@dataclass
class Fault:
    """What goes wrong at the first `times` requests whose method and path have `step` in them."""

    step: str
    kind: str | int  # a status, "drop" or "hang"
    times: int = 1_000_000


class FakeHub:
    """The state of the server.

    Attributes:
        repositories: by full name, datasets as `datasets/OWNER/NAME`.
        large: contents by SHA-256, as the storage of large files holds them.
        requests: how often each step was called; `log` holds method and path of every request in order.
        fault: what goes wrong, if anything.
        ignored: names that a repository's `.gitignore` keeps out.
        meanwhile: called with each request before it is answered: what somebody else does at that moment.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.log: list[str] = []
        self.fault: Fault | None = None
        self.ignored: set[str] = set()
        self.meanwhile: Callable[[str], None] = lambda _line: None
        self.url = ""
        self.stopping = threading.Event()

    @property
    def counts(self) -> Counter[str]:
        return Counter(step for line in self.log for step in STEPS if step in line)

    def fault_for(self, line: str) -> str | int | None:
        fault = self.fault
        if fault is None or fault.step not in line or fault.times <= 0:
            return None
        fault.times -= 1
        return fault.kind


STEPS = ("repos/create", "preupload", "objects/batch", "PUT /storage", "verify", "/commit/", "/tree/", "/resolve/")


class _Place:
    """Where all hubs of this process are, one after the other: processes that use them differ in no variable."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self._folder = tempfile.TemporaryDirectory()
        self.home = Path(self._folder.name, "hf_home")


@cache
def place() -> _Place:
    """The address of all hubs of this process, and the folder of what the hub's libraries keep, new for each hub."""
    return _Place()


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    """Serve on this machine while the body runs, at `place`, so one at a time."""
    shutil.rmtree(place().home, ignore_errors=True)
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(place().socket.getsockname(), handler, bind_and_activate=False)
    server.socket.close()
    server.socket = place().socket.dup()
    server.daemon_threads = True
    hub.url = place().url
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and content go out in two writes

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        line = f"{self.command} {path}"
        self.hub.log.append(line)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.meanwhile(line)
        fault = self.hub.fault_for(line)
        if fault == "drop":
            # A reset rather than an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault == "hang":
            self.hub.stopping.wait(30)
            self.close_connection = True
        elif isinstance(fault, int):
            self._send(fault, {"error": f"planned {fault}"})
        elif not path.startswith("/storage") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, {"error": "Invalid credentials in Authorization header"})
        else:
            self._route(path, body)

    def _route(self, path: str, body: bytes) -> None:
        parts = path.strip("/").split("/")
        if path == "/api/whoami-v2":
            self._send(200, {"name": OWNER, "type": "user"})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._send(200, {"warnings": [], "errors": []})
        elif parts[0] == "storage":
            self._store(parts[1], body)
        elif path == "/verify":
            wanted = json.loads(body)
            is_whole = len(self.hub.large.get(wanted["oid"], b"")) == wanted["size"]
            self._send(200 if is_whole else 404, {})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        elif parts[0] == "api" and parts[1] in ("models", "datasets") and len(parts) >= 4:
            self._repository("datasets/" * (parts[1] == "datasets") + "/".join(parts[2:4]), parts[4:], body)
        elif len(parts) >= 6 and parts[0] == "datasets" and parts[3] == "resolve":
            self._resolve("/".join(parts[:3]), "/".join(parts[5:]))
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._send(404, {"error": "Not Found"}, {"X-Error-Code": "EntryNotFound"})

    def _create(self, wish: dict[str, Any]) -> None:
        name = f"{wish.get('organization') or OWNER}/{wish['name']}"
        if wish.get("type") == "dataset":
            name = f"datasets/{name}"
        if name in self.hub.repositories:
            self._send(409, {"error": "You already created this model repo"})
            return
        self.hub.repositories[name] = Repository(private=wish.get("visibility") == "private")
        self._send(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def _repository(self, name: str, rest: list[str], body: bytes) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif not rest or rest[0] == "revision":
            info = {"id": name.removeprefix("datasets/"), "sha": repository.head, "private": repository.private}
            siblings = [_sibling(path, content) for path, content in repository.files.items()]
            self._send(200, {**info, "siblings": siblings, "tags": [], "downloads": 0})
        elif rest[0] == "tree" and len(rest) == 2:
            self._send(200, [_entry(path, content) for path, content in repository.files.items()])
        elif rest[0] == "preupload":
            self._preupload(repository, json.loads(body))
        elif rest[0] == "commit":
            self._commit(name, repository, body)
        else:
            self._send(404, {"error": "Not Found"}, {"X-Error-Code": "EntryNotFound"})

    def _preupload(self, repository: Repository, wish: dict[str, Any]) -> None:
        files = []
        for file in wish["files"]:
            content = repository.files.get(file["path"])
            is_large = file["path"].endswith(LARGE)
            known = (
                None if content is None else hashlib.sha256(content).hexdigest() if is_large else git_blob_id(content)
            )
            mode = "lfs" if is_large else "regular"
            files.append(
                {
                    "path": file["path"],
                    "uploadMode": mode,
                    "shouldIgnore": file["path"] in self.hub.ignored,
                    "oid": known,
                }
            )
        self._send(200, {"files": files})

    def _batch(self, wish: dict[str, Any]) -> None:
        objects = []
        for item in wish["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.large:
                target = f"{self.hub.url}/storage/{item['oid']}"
                entry["actions"] = {
                    "upload": {"href": f"{target}?signature=secret"},
                    "verify": {"href": f"{self.hub.url}/verify"},
                }
            objects.append(entry)
        self._send(200, {"transfer": "basic", "objects": objects})

    def _store(self, oid: str, body: bytes) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._send(400, {"error": "content does not have that SHA-256"})
            return
        self.hub.large[oid] = body
        self._send(200, {})

    def _commit(self, name: str, repository: Repository, body: bytes) -> None:
        entries = [json.loads(line) for line in body.splitlines()]
        header = entries[0]["value"]
        if header.get("parentCommit") not in (None, repository.head):
            self._send(412, {"error": "A commit has happened since"})
            return
        changed, files = [], dict(repository.files)
        for entry in entries[1:]:
            value = entry["value"]
            changed.append((entry["key"], value["path"]))
            if entry["key"] == "deletedFile":
                del files[value["path"]]
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        repository.files = files
        repository.commits.append({"summary": header["summary"], "changed": changed, "time": time.time()})
        url = f"{self.hub.url}/{name}/commit/{repository.head}"
        self._send(200, {"success": True, "commitOid": repository.head, "commitUrl": url})

    def _resolve(self, name: str, path: str) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif path not in repository.files:
            commit = {"X-Repo-Commit": repository.head}
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", **commit})
        else:
            content = repository.files[path]
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": repository.head}
            self._send_bytes(200, content, "application/octet-stream", headers)

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(value).encode(), "application/json", headers or {})

    def _send_bytes(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": git_blob_id(content)}


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_blob_id(content)}
    if path.endswith(LARGE):
        oid = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()
        entry["blobId"] = git_blob_id(pointer)
        entry["lfs"] = {"sha256": oid, "size": len(content), "pointerSize": len(pointer)}
    return entry
