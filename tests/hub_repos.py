"""What the loopback Hub of the tests keeps: repositories, commits and blobs, hashed as git and LFS do."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import yaml

#: What a fresh repository sends through LFS, and from which size on every file.
LFS_SUFFIXES = (".bin", ".h5", ".keras", ".onnx", ".png", ".safetensors", ".tflite")
LFS_BYTES = 10 << 20
HEADER = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)


class RefusedError(Exception):
    """An answer with an error status."""

    def __init__(self, status: int, message: str, code: str = "", body: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.body = status, message, code, body


@dataclass(frozen=True)
class User:
    """Who a token belongs to."""

    name: str
    organisations: tuple[str, ...] = ()
    may_write: bool = True

    def owns(self, namespace: str) -> bool:
        return namespace == self.name or namespace in self.organisations


#: Tokens no output may ever hold. The names say whose they are.
WRITER, READER, STRANGER = "hf_CanaryOfTheWriter", "hf_CanaryOfTheReader", "hf_CanaryOfAStranger"
TOKENS = {
    WRITER: User("writer", ("zoo",)),
    READER: User("reader", ("zoo",), may_write=False),
    STRANGER: User("stranger"),
}


@dataclass
class Fault:
    """What goes wrong with requests of a method to a path.

    Attributes:
        method, path: which requests; `path` is a regular expression.
        action: a status, "drop" (the connection is closed without an answer), "truncate" (half the body), "flip" (one
            wrong byte).
        done: whether the request is carried out all the same.
        times: how often.
        skip: how many such requests pass first.
    """

    method: str
    path: str
    action: int | str
    done: bool = False
    times: int = 1
    skip: int = 0

    def takes(self, method: str, path: str) -> bool:
        if method != self.method or not re.search(self.path, path) or self.times <= 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Request:
    """A request that came, with the status it was answered with; 0 for none."""

    method: str
    path: str
    status: int
    authorised: bool


@dataclass(frozen=True)
class Blob:
    """A file's content and whether it is an LFS file."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        """Git's id: of the content, or of the pointer that stands for an LFS file."""
        body = self.data
        if self.lfs:
            body = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(body)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()

    def lfs_info(self, key: str) -> dict[str, Any]:
        return {"lfs": {key: self.sha256, "size": len(self.data), "pointerSize": 134}} if self.lfs else {}


@dataclass(frozen=True)
class Commit:
    """A state of all files."""

    oid: str
    files: Mapping[str, Blob]
    title: str
    author: str
    date: str


@dataclass
class Repo:
    """A model repository."""

    id: str
    private: bool
    author: str
    number: int = 0
    downloads: int = 0
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, list[str]] = field(default_factory=lambda: {"main": []})
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        self.add("main", {".gitattributes": Blob(attributes.encode(), lfs=False)}, "initial commit", self.author)

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    def add(self, branch: str, files: Mapping[str, Blob], title: str, author: str) -> Commit:
        """Add a commit to a branch."""
        self.number += 1
        seed = f"{self.id} {self.number} {json.dumps({p: b.oid for p, b in files.items()}, sort_keys=True)}"
        date = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=self.number)
        stamp = date.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        commit = Commit(hashlib.sha1(seed.encode()).hexdigest(), dict(files), title, author, stamp)
        self.commits[commit.oid] = commit
        self.branches[branch].append(commit.oid)
        return commit

    def at(self, revision: str) -> Commit:
        """Return the commit of a branch, tag or commit id."""
        oid = self.branches[revision][-1] if revision in self.branches else self.tags.get(revision, revision)
        if oid not in self.commits:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def head(self, branch: str = "main") -> dict[str, bytes]:
        """Return a branch's files: what tests compare."""
        return {path: blob.data for path, blob in self.at(branch).files.items()}

    def history(self, branch: str = "main") -> list[Commit]:
        """Return a branch's commits, oldest first, the initial one included."""
        return [self.commits[oid] for oid in self.branches[branch]]

    def info(self, commit: Commit, *, siblings: bool = True, blobs: bool = False) -> dict[str, Any]:
        """Return what the API says of a repository."""
        readme = commit.files.get("README.md")
        found = HEADER.match(readme.data.decode()) if readme else None
        card = (yaml.safe_load(found[1]) or {}) if found else {}
        tags = [card.get("library_name"), *(card.get("tags") or [])]
        data = {
            "id": self.id, "modelId": self.id, "author": self.namespace, "sha": commit.oid, "private": self.private,
            "gated": False, "disabled": False, "downloads": self.downloads, "likes": 0, "lastModified": commit.date,
            "createdAt": next(iter(self.commits.values())).date, "tags": [t for t in dict.fromkeys(tags) if t],
            "library_name": card.get("library_name"), "pipeline_tag": card.get("pipeline_tag"), "cardData": card,
        }  # fmt: skip
        if siblings:
            data["siblings"] = [
                {"rfilename": p, **({"size": len(b.data), "blobId": b.oid, **b.lfs_info("sha256")} if blobs else {})}
                for p, b in sorted(commit.files.items())
            ]
        return data

    def apply(self, revision: str, lines: list[dict[str, Any]], lfs: Mapping[str, bytes], author: str) -> Commit:
        """Carry out the lines of a commit request; the same files again make no commit."""
        if revision not in self.branches:
            raise RefusedError(400, "commits go to branches")
        parent = self.at(revision)
        files, title = dict(parent.files), ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, parent.oid):
                    raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
            elif line["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), lfs=False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in lfs:
                    raise RefusedError(400, f"LFS object {value['oid']} was never uploaded")
                files[value["path"]] = Blob(lfs[value["oid"]], lfs=True)
            elif line["key"] == "deletedFile":
                files.pop(value["path"], None)
            else:
                raise RefusedError(400, f"unknown operation {line['key']}")
        if {p: b.oid for p, b in files.items()} == {p: b.oid for p, b in parent.files.items()}:
            return parent
        return self.add(revision, files, title, author)
