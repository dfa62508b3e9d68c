"""A Hugging Face Hub on the loopback interface, for the real huggingface_hub client.

Models only, state in memory: repositories, commits, branches, tags, LFS, xet (a folder as its store), ranges, pages,
tokens, private repositories. `Fault` breaks requests: before they are carried out or after, by a status, a closed
connection, half a body, or wrong bytes. Not simulated: pull requests, gated repositories, the Hub's checks of licence
names and the like. Nothing here was compared with huggingface.co itself.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import yaml
from hub_repos import HEADER, LFS_BYTES, LFS_SUFFIXES, TOKENS, Fault, RefusedError, Repo, Request, User


class DropError(Exception):
    """Close the connection."""


Route = tuple[str, re.Pattern[str], Callable[..., None]]
ROUTES: list[Route] = []
ID, REVISION = r"(?P<id>[^/]+/[^/]+)", r"(?P<revision>[^/]+)"


def route(methods: str, pattern: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a handler's method for requests."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        ROUTES.extend((method, re.compile(pattern + r"\Z"), function) for method in methods.split())
        return function

    return register


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    hub: HubServer
    fault: Fault | None = None

    def log_message(self, format: str, *args: object) -> None:
        """Keep stderr quiet."""

    def handle_request(self) -> None:
        """Answer any request."""
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query, keep_blank_values=True)
        self.body = self._read()
        with self.hub.lock:
            self.fault = next((f for f in self.hub.faults if f.takes(self.command, parts.path)), None)
            try:
                if self.fault and not self.fault.done:
                    self._fail()
                self._dispatch(parts.path)
            except RefusedError as error:
                head = {"X-Error-Message": error.message, **({"X-Error-Code": error.code} if error.code else {})}
                self.fault = None  # an error needs no second one
                self.answer(error.status, error.body or {"error": error.message}, head)
            except DropError:
                self._log(0)
                self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _dispatch(self, path: str) -> None:
        for method, pattern, function in ROUTES:
            found = pattern.match(path)
            if method == self.command and found:
                function(self, **{k: unquote(v) for k, v in found.groupdict().items() if v is not None})
                return
        raise RefusedError(404, f"no route for {self.command} {path}")

    def _fail(self) -> None:
        assert self.fault
        if self.fault.action == "drop":
            raise DropError
        if isinstance(self.fault.action, int):
            raise RefusedError(self.fault.action, "injected fault")

    def _log(self, status: int) -> None:
        self.hub.requests.append(Request(self.command, self.path, status, "Authorization" in self.headers))

    def answer(self, status: int, body: Any = b"", head: dict[str, str] | None = None) -> None:
        """Send an answer; the request is carried out by now."""
        if self.fault and self.fault.done:
            self._fail()
        head = dict(head or {})
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            head["Content-Type"] = "application/json"
        self._log(status)  # first: a client that has its answer finds its request in the log
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **head}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self._spoilt(body))

    def _spoilt(self, body: bytes) -> bytes:
        action = self.fault.action if self.fault else None
        if action == "truncate":
            self.close_connection = True
            return body[: len(body) // 2]
        if action == "flip" and body:
            middle = len(body) // 2
            return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        return body

    # What requests need.

    @property
    def user(self) -> User | None:
        """Whose token came with the request."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.tokens:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return self.hub.tokens.get(token)

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def one(self, key: str, default: str = "") -> str:
        return self.query.get(key, [default])[0]

    def repo(self, id: str, *, write: bool = False) -> Repo:
        user, found = self.user, self.hub.repos.get(id)
        mine = user is not None and user.owns(id.split("/")[0])
        if found is None or (found.private and not mine):
            raise RefusedError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not (mine and user and user.may_write):
            raise RefusedError(403 if user else 401, "You have no right to write to this repository")
        return found

    def page(self, rows: list[Any]) -> None:
        """Answer with some rows and a link to the next ones."""
        start = int(self.one("cursor", "0"))
        end = start + min(int(self.one("limit", "1000")), self.hub.page)
        query = [(k, v) for k, vs in self.query.items() if k != "cursor" for v in vs]
        url = f"{self.hub.url}{urlsplit(self.path).path}?{urlencode([*query, ('cursor', str(end))])}"
        self.answer(200, rows[start:end], {"Link": f'<{url}>; rel="next"'} if end < len(rows) else {})

    def ranged(self, data: bytes, head: dict[str, str]) -> None:
        """Answer with a file, or the part of it that was asked for."""
        found = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not found:
            return self.answer(200, data, head)
        first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
        head = {**head, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
        return self.answer(206, data[first : last + 1], head)


@route("GET", "/api/whoami-v2")
def whoami(self: Handler) -> None:
    if not self.user:
        raise RefusedError(401, "Invalid username or password.")
    role = "write" if self.user.may_write else "read"
    self.answer(200, {"type": "user", "name": self.user.name, "orgs": [], "auth": {"accessToken": {"role": role}}})


@route("POST", "/api/validate-yaml")
def validate_yaml(self: Handler) -> None:
    found = HEADER.match(self.json()["content"])
    try:
        good = isinstance(yaml.safe_load(found[1]) if found else {}, dict)
    except yaml.YAMLError:
        good = False
    self.answer(200 if good else 400, {"errors": [] if good else [{"message": "no mapping"}], "warnings": []})


@route("POST", "/api/repos/create")
def create(self: Handler) -> None:
    wanted, user = self.json(), self.user
    if user is None:
        raise RefusedError(401, "Invalid username or password.")
    namespace = wanted.get("organization") or user.name
    id = f"{namespace}/{wanted['name']}"
    if not (user.owns(namespace) and user.may_write):
        raise RefusedError(403, f"You don't have the rights to create a model under the namespace '{namespace}'.")
    if id in self.hub.repos:
        body = {"error": "You already created this model repo", "url": f"{self.hub.url}/{id}"}
        raise RefusedError(409, body["error"], body=body)
    self.hub.repos[id] = Repo(id, wanted.get("visibility") == "private", user.name)
    self.answer(200, {"url": f"{self.hub.url}/{id}", "name": id})


@route("GET", "/api/models")
def models(self: Handler) -> None:
    rows = [
        repo.info(repo.at("main"), siblings=False)
        for repo in self.hub.repos.values()
        if not repo.private or (self.user and self.user.owns(repo.namespace))
    ]
    for author in self.query.get("author", []):
        rows = [r for r in rows if r["author"] == author]
    for wanted in self.query.get("filter", []):
        rows = [r for r in rows if wanted in r["tags"]]
    self.page(rows)


@route("GET", f"/api/models/{ID}(?:/revision/{REVISION})?")
def model_info(self: Handler, id: str, revision: str = "main") -> None:
    repo = self.repo(id)
    self.answer(200, repo.info(repo.at(revision), blobs="blobs" in self.query))


@route("GET", f"/api/models/{ID}/tree/{REVISION}")
def tree(self: Handler, id: str, revision: str) -> None:
    files = self.repo(id).at(revision).files
    folders = sorted({path.rpartition("/")[0] for path in files} - {""})
    rows: list[Any] = [{"type": "directory", "path": f, "size": 0, "oid": "0" * 40} for f in folders]
    for path, blob in sorted(files.items()):
        rows.append({"type": "file", "path": path, "size": len(blob.data), "oid": blob.oid, **blob.lfs_info("oid")})
        if xet := self.hub.xet_hashes.get(blob.sha256):
            rows[-1]["xetHash"] = xet
    self.page(rows)


@route("GET", f"/api/models/{ID}/refs")
def refs(self: Handler, id: str) -> None:
    repo = self.repo(id)
    branches = {f"refs/heads/{n}": oids[-1] for n, oids in repo.branches.items()}
    tags = {f"refs/tags/{n}": oid for n, oid in repo.tags.items()}
    rows = [
        [{"name": ref.split("/", 2)[2], "ref": ref, "targetCommit": oid} for ref, oid in table.items()]
        for table in (branches, tags)
    ]
    self.answer(200, {"converts": [], "branches": rows[0], "tags": rows[1]})


@route("POST", f"/api/models/{ID}/(?P<kind>tag|branch)/{REVISION}")
def add_ref(self: Handler, id: str, kind: str, revision: str) -> None:
    """Add a tag, which is posted at its target, or a branch, which is posted at its own name."""
    repo, wanted = self.repo(id, write=True), self.json()
    name = wanted["tag"] if kind == "tag" else revision
    if name in (repo.tags if kind == "tag" else repo.branches):
        raise RefusedError(409, "Reference already exists")
    oid = repo.at(revision if kind == "tag" else wanted.get("startingPoint") or "main").oid
    if kind == "tag":
        repo.tags[name] = oid
    else:
        repo.branches[name] = [oid]
    self.answer(200, {})


@route("POST", f"/api/models/{ID}/preupload/{REVISION}")
def preupload(self: Handler, id: str, revision: str) -> None:
    have, wanted = self.repo(id, write=True).at(revision).files, self.json()
    ignore = [line for line in (wanted.get("gitIgnore") or "").splitlines() if line and line[0] != "#"]
    rows = []
    for entry in wanted["files"]:
        path = entry["path"]
        lfs = entry["size"] > LFS_BYTES or path.endswith(LFS_SUFFIXES)
        ignored = any(fnmatch.fnmatch(path, pattern) for pattern in ignore)
        row = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": ignored}
        rows.append({**row, "oid": have[path].oid if path in have else None})
    self.answer(200, {"files": rows})


@route("POST", rf"/{ID}\.git/info/lfs/objects/batch")
def lfs_batch(self: Handler, id: str) -> None:
    self.repo(id, write=True)
    upload = {"upload": {"href": f"{self.hub.url}/_lfs/OID"}, "verify": {"href": f"{self.hub.url}/_verify"}}
    rows = []
    for entry in self.json()["objects"]:
        actions = json.loads(json.dumps(upload).replace("OID", entry["oid"]))
        rows.append(entry if entry["oid"] in self.hub.lfs else {**entry, "actions": actions})
    self.answer(200, {"transfer": "basic", "objects": rows})


@route("PUT", "/_lfs/(?P<oid>[0-9a-f]{64})")
def lfs_put(self: Handler, oid: str) -> None:
    if hashlib.sha256(self.body).hexdigest() != oid:
        raise RefusedError(400, "sha256 mismatch")
    self.hub.lfs[oid] = self.body
    self.answer(200, {})


@route("POST", "/_verify")
def lfs_verify(self: Handler) -> None:
    wanted = self.json()
    self.answer(200 if len(self.hub.lfs.get(wanted["oid"], b"")) == wanted["size"] else 404, {})


@route("POST", f"/api/models/{ID}/commit/{REVISION}")
def commit(self: Handler, id: str, revision: str) -> None:
    repo = self.repo(id, write=True)
    assert self.user
    lines = [json.loads(line) for line in self.body.splitlines()]
    made = repo.apply(revision, lines, self.hub.lfs, self.user.name)
    url = f"{self.hub.url}/{id}/commit/{made.oid}"
    self.answer(200, {"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


@route("GET HEAD", f"/{ID}/resolve/{REVISION}/(?P<path>.+)")
def resolve(self: Handler, id: str, revision: str, path: str) -> None:
    repo = self.repo(id)
    commit = repo.at(revision)
    if path not in commit.files:
        raise RefusedError(404, f"Entry {path} not found", "EntryNotFound")
    blob = commit.files[path]
    head = {"X-Repo-Commit": commit.oid, "ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
    repo.downloads += path == "config.json"
    if not blob.lfs:
        return self.ranged(blob.data, head)
    head |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
    if xet := self.hub.xet_hashes.get(blob.sha256):
        route = f"{self.hub.url}/api/models/{id}/xet-read-token/{quote(revision)}"
        head |= {"X-Xet-Hash": xet, "X-Xet-Refresh-Route": route}
    return self.answer(302, b"", {**head, "Location": f"{self.hub.elsewhere}/_cdn/{blob.sha256}"})


@route("GET HEAD", "/_cdn/(?P<oid>[0-9a-f]{64})")
def cdn(self: Handler, oid: str) -> None:
    self.ranged(self.hub.lfs[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


@route("GET", f"/api/models/{ID}/xet-(?:write|read)-token/{REVISION}")
def xet_token(self: Handler, id: str, revision: str) -> None:
    if self.hub.xet_store is None:
        raise RefusedError(404, "no xet here")
    self.repo(id).at(revision)
    url, end = f"local://{self.hub.xet_store}", int(time.time()) + 3600
    head = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "x", "X-Xet-Token-Expiration": str(end)}
    self.answer(200, {"accessToken": "x", "exp": end, "casUrl": url}, head)


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that went away, which may do so at any moment; the rest as ever."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the exception unless it is the client's going."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class HubServer:
    """The server, in a thread.

    Attributes:
        url: where it is. LFS files come from another origin, `elsewhere`, as with the Hub.
        repos, lfs, tokens: its state; tests may look and change.
        requests: what came, in order.
        faults: what is to go wrong.
        page: rows of a listing at a time.
        xet_store: a folder for xet; None turns xet off. With it, `xet_hashes` says sha256 to xet hash for downloads.
    """

    def __init__(self, xet_store: Path | None = None) -> None:
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.tokens = dict(TOKENS)
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.page = 1000
        self.xet_store, self.xet_hashes = xet_store, dict[str, str]()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = QuietServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.elsewhere = f"http://localhost:{self.server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def learn(self, data: bytes) -> str:
        """Know a content that goes another way than through here, by xet; return its sha256."""
        oid = hashlib.sha256(data).hexdigest()
        self.lfs[oid] = data
        return oid

    def count(self, method: str, path: str) -> int:
        """Return how many requests of a method came to a path (a regular expression)."""
        return sum(r.method == method and re.search(path, r.path) is not None for r in self.requests)

    def history(self, id: str, branch: str = "main") -> list[str]:
        """Return the titles of the commits after the initial one."""
        return [commit.title for commit in self.repos[id].history(branch)[1:]]
