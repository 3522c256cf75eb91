"""A stand-in of the hub's HTTP interface: accounts, repositories, commits, large files and downloads, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_test"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the stand-in holds.

    Attributes:
        files: Content by repository and path.
        large: Content of large files by digest.
        asked: Requests in order: method and path.
        bodies: JSON bodies of requests, by path.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    bodies: dict[str, Any] = field(default_factory=dict)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does."""

    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, content: Any = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        sent = {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}
        for name, value in sent.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        self.hub.asked.append((self.command, self.path))
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_GET(self) -> None:
        self.body()
        if self.path == "/api/whoami-v2":
            known = {"name": "ada", "type": "user", "auth": {"accessToken": {"role": "write"}}}
            self.answer(*((200, known) if self.known() else (401, {"error": "Invalid credentials"})))
            return
        user, model, _, revision, *rest = (*self.path.strip("/").split("?")[0].split("/"), "", "", "")
        found = self.hub.files.get(f"{user}/{model}")
        name = "/".join(part for part in rest if part)
        if found is None:
            self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.answer(404, {"error": "No revision"}, X_Error_Code="RevisionNotFound")
        elif name not in found:
            self.answer(404, {"error": "No entry"}, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        else:
            tag = f'"{hashlib.sha256(found[name]).hexdigest()}"'
            self.answer(200, found[name], ETag=tag, X_Repo_Commit=COMMIT)

    do_HEAD = do_GET  # noqa: N815 - the name that the base class looks for

    def do_PUT(self) -> None:
        content = self.body()
        self.hub.large[self.path.rpartition("/")[2]] = content
        self.answer(200)

    def do_POST(self) -> None:
        content, parts = self.body(), self.path.strip("/").split("/")
        if not self.known():
            self.answer(401, {"error": "Invalid credentials"})
        elif self.path == "/api/repos/create":
            asked = json.loads(content)
            self.hub.bodies[self.path] = asked
            name = f"{asked.get('organization') or 'ada'}/{asked['name']}"
            if name.startswith("other/"):
                self.answer(
                    403, {"error": "You don't have the rights to create a model under this namespace"}
                )
                return
            self.hub.files.setdefault(name, {})
            self.answer(200, {"url": f"{self.hub.url}/{name}", "name": name, "id": COMMIT})
        elif "preupload" in parts:
            files = json.loads(content)["files"]
            mode = {True: "lfs", False: "regular"}
            named = [
                {
                    "path": f["path"],
                    "uploadMode": mode[f["path"].endswith(".safetensors")],
                    "shouldIgnore": False,
                }
                for f in files
            ]
            self.answer(200, {"files": named, "commitOid": COMMIT})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.hub.url}/large/{each['oid']}"}}}
                for each in json.loads(content)["objects"]
            ]
            self.answer(200, {"transfer": "basic", "objects": objects})
        elif "commit" in parts:
            self.commit(f"{parts[2]}/{parts[3]}", content)
        else:
            self.answer(200, {})

    def commit(self, repository: str, content: bytes) -> None:
        for line in content.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.hub.files[repository][value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.hub.files[repository][value["path"]] = self.hub.large[value["oid"]]
        url = f"{self.hub.url}/{repository}/commit/{COMMIT}"
        self.answer(200, {"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None})


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a hub on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfThisHub", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
