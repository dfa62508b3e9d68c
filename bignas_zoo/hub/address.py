"""Addresses on the Hub: ``hf://ORG/NAME`` and ``hf://ORG/NAME@REVISION``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bignas_zoo.errors import UsageError

SCHEME = "hf://"
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,200}")
COMMIT = re.compile(r"[0-9a-f]{40}")
MAIN = "main"


@dataclass(frozen=True)
class Address:
    """A repository of the Hub, at a branch, tag or commit.

    Attributes:
        repo: ``ORG/NAME``.
        revision: a branch, a tag, or the 40 hex digits of a commit.
    """

    repo: str
    revision: str = MAIN

    def __str__(self) -> str:
        """Return it as a user writes it."""
        return f"{SCHEME}{self.repo}" + ("" if self.revision == MAIN else f"@{self.revision}")

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return COMMIT.fullmatch(self.revision) is not None

    @property
    def folder(self) -> str:
        """The repository's name as the name of a folder; no two repositories share one."""
        return self.repo.replace("/", "--")


def parse(text: str) -> Address:
    """Read ``hf://ORG/NAME[@REVISION]``.

    Raises:
        UsageError: it is something else.
    """
    repo, at, revision = text.removeprefix(SCHEME).partition("@")
    if not text.startswith(SCHEME):
        raise UsageError(f"'{text[:200]}': an address on the Hub is hf://ORG/NAME or hf://ORG/NAME@REVISION.")
    check_repo(repo)
    if at:
        check_revision(revision)
    return Address(repo, revision if at else MAIN)


def check_repo(repo: str) -> str:
    """Return a repository's ``ORG/NAME`` if it can be one.

    Raises:
        UsageError: it cannot.
    """
    parts = repo.split("/")
    if repo.endswith(".git"):
        raise UsageError(f"repository {repo[:200]!r}: the name of a repository does not end in '.git'; leave it out.")
    if len(parts) != 2 or not all(NAME.fullmatch(p) and "--" not in p and ".." not in p for p in parts):
        raise UsageError(
            f"repository {repo[:200]!r}: must be ORG/NAME, each up to 96 letters, digits, '-', '_' and '.', not ending "
            "in '-' or '.', without '--' and '..'."
        )
    return repo


def check_owner(owner: str) -> str:
    """Return the name of a user or organisation if it can be one.

    Raises:
        UsageError: it cannot.
    """
    if not NAME.fullmatch(owner) or "--" in owner or ".." in owner:
        raise UsageError(f"owner {owner[:200]!r}: must be the name of a user or organisation: letters, digits and '-'.")
    return owner


def check_revision(revision: str) -> str:
    """Return a revision if it can be one.

    Raises:
        UsageError: it cannot.
    """
    if not REVISION.fullmatch(revision) or ".." in revision or "//" in revision or revision.endswith(("/", ".")):
        raise UsageError(f"revision {revision[:200]!r}: must be a branch, a tag, or the 40 hex digits of a commit.")
    return revision
