"""From the files of a slice to a commit of its repository: compared first, then made in one commit.

The plan compares what is there with what should be; a commit is made on top of exactly the commit that was compared
with, so none is made twice, whatever became of an answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bignas_zoo.errors import AuthError, BigNASError, IntegrityError, NetworkError, NotFoundError, UsageError
from bignas_zoo.files import names, store
from bignas_zoo.files.say import Say, silent
from bignas_zoo.hub import layout
from bignas_zoo.hub.address import MAIN
from bignas_zoo.hub.client import Hub, RemoteFile, RequestError, State, additions, deletions, is_same
from bignas_zoo.hub.signing import Signer
from bignas_zoo.zoo.slice import Slice

#: Waits between tries of a commit, in seconds.
WAITS = (1.0, 4.0, 10.0)
#: After these a commit may be tried again; after any failure it is first looked up whether it was made.
TRY_AGAIN = (None, 408, 409, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Bundle:
    """The files of a repository, in a temporary folder.

    Attributes:
        slice: what they are.
        files: path in the repository to file.
        left_out: files of the slice folder that stay at home, and why.
    """

    slice: Slice
    files: Mapping[str, Path]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """What happens to one file of a repository: "new", "changed", "same" or "removed"."""

    path: str
    kind: str
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What a push will do.

    Attributes:
        repo: ``ORG/NAME``.
        branch: that the commit goes to.
        url: where people look at the repository.
        private: whether others will not see it.
        makes_repo, makes_branch: whether they are not there yet.
        parent: the commit that was compared with; None if there is none.
        changes: of each file, by path.
        slice: name of the slice.
    """

    repo: str
    branch: str
    url: str
    private: bool
    makes_repo: bool
    makes_branch: bool
    parent: str | None
    changes: tuple[Change, ...]
    slice: str

    @property
    def is_empty(self) -> bool:
        """Whether everything is there already."""
        return self.parent is not None and not self.makes_branch and all(c.kind == "same" for c in self.changes)

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        return {
            "slice": self.slice,
            "repo": self.repo,
            "revision": self.branch,
            "url": self.url,
            "private": self.private,
            "makes_repo": self.makes_repo,
            "parent": self.parent,
            "files": [{"path": c.path, "change": c.kind, "bytes": c.bytes} for c in self.changes],
        }


@dataclass(frozen=True)
class PushResult:
    """What a push did.

    Attributes:
        plan: what it was to do.
        commit: that now holds exactly these files; None if it was declined.
        pushed: whether this call made the commit; False if all was there, or it was declined.
        commit_url: where people look at it.
    """

    plan: Plan
    commit: str | None
    pushed: bool
    commit_url: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON data."""
        return {**self.plan.to_json(), "commit": self.commit, "pushed": self.pushed, "commit_url": self.commit_url}


def signed(bundle: Bundle, repo: str, signer: Signer) -> Bundle:
    """Return a bundle with a signature of its manifest for a repository."""
    listed = bundle.files[names.SUMS]
    file = listed.with_name(names.SIGNATURE)
    store.atomic_write(file, signer.sign(listed.read_bytes(), repo))
    return Bundle(bundle.slice, {**bundle.files, names.SIGNATURE: file}, bundle.left_out)


def plan(hub: Hub, bundle: Bundle, repo: str, branch: str, private: bool) -> Plan:
    """Compare a bundle with what is in its repository.

    Raises:
        UsageError: `private` is asked for, and the repository is public.
        AuthError, NetworkError: see `push`.
    """
    state, makes_branch = _state(hub, repo, branch)
    if state and private and not state.private:
        raise UsageError(f"{hub.url(repo)}: is public, so it is not pushed to with --private. Choose another --repo.")
    return Plan(
        repo=repo,
        branch=branch,
        url=hub.url(repo),
        private=state.private if state else private,
        makes_repo=state is None,
        makes_branch=makes_branch,
        parent=state.commit if state else None,
        changes=compare(bundle.files, state.files if state else {}),
        slice=bundle.slice.name,
    )


def _state(hub: Hub, repo: str, branch: str) -> tuple[State | None, bool]:
    """Return what the branch is, or what it will be made from; and whether it has to be made."""
    try:
        return hub.state(repo, branch), False
    except NotFoundError:
        if branch == MAIN:
            return None, False
    try:
        return hub.state(repo, MAIN), True
    except NotFoundError:
        return None, True


def compare(files: Mapping[str, Path], remote: Mapping[str, RemoteFile]) -> tuple[Change, ...]:
    """Return what has to happen to each file so that the repository holds these; other people's files stay."""
    changes = []
    for path, file in files.items():
        data = file.read_bytes()
        kind = "new" if path not in remote else "same" if is_same(data, remote[path]) else "changed"
        changes.append(Change(path, kind, len(data)))
    stale = [path for path in remote if path not in files and layout.is_ours(path)]
    if any(c.path == names.SUMS and c.kind == "same" for c in changes):  # a signature of it stays good
        stale = [path for path in stale if path != names.SIGNATURE]
    changes += [Change(path, "removed", remote[path].bytes) for path in stale]
    return tuple(sorted(changes, key=lambda c: c.path))


def carry_out(hub: Hub, bundle: Bundle, planned: Plan, say: Say = silent) -> PushResult:
    """Do what was planned.

    Raises:
        AuthError, NetworkError: see `push`. Nothing is half done: the commit is there or it is not.
    """
    if planned.is_empty:
        assert planned.parent
        return PushResult(planned, planned.parent, False, hub.url(planned.repo, planned.parent))
    parent = planned.parent
    if planned.makes_repo:
        say(f"making {'private ' if planned.private else ''}repository {planned.repo}")
        hub.create(planned.repo, private=planned.private)
        created = hub.state(planned.repo, MAIN)
        _check_private(hub, planned, created)
        parent = created.commit
    if planned.makes_branch:
        hub.create_branch(planned.repo, planned.branch)
        parent = hub.state(planned.repo, planned.branch).commit
    assert parent
    commit = _commit(hub, bundle, planned, parent, say)
    return PushResult(planned, commit, True, hub.url(planned.repo, commit))


def _check_private(hub: Hub, planned: Plan, created: State) -> None:
    if planned.private and not created.private:  # somebody else made it between the plan and now
        raise AuthError(f"{hub.url(planned.repo)}: is not private, as was asked for. Nothing was pushed.")


def _commit(hub: Hub, bundle: Bundle, planned: Plan, parent: str, say: Say) -> str:
    """Make the one commit; a failure is followed by a look whether it was made."""
    removed = [c.path for c in planned.changes if c.kind == "removed"]
    changed = {c.path: bundle.files[c.path] for c in planned.changes if c.kind in ("new", "changed")}
    if not changed and not removed:  # a new branch that holds everything from the start
        return parent
    operations: list[Any] = [*additions(changed), *deletions(removed)]
    files, size = "file" if len(changed) == 1 else "files", sum(f.stat().st_size for f in changed.values())
    say(f"pushing {len(changed)} {files}, {size:,} bytes, to {planned.repo}")
    for wait in (*WAITS, None):
        try:
            commit = hub.commit(planned.repo, planned.branch, operations, f"Slice {planned.slice}", parent)
            _look_again(hub, bundle, planned, commit, say)
            return commit
        except RequestError as failure:
            head = _head(hub, bundle, planned)
            if head.commit != parent:
                if head.files_match:
                    say("the Hub answered with an error, but the commit is there")
                    return head.commit
                raise NetworkError(
                    f"{hub.url(planned.repo)}: somebody else pushed to {planned.branch} meanwhile; "
                    "nothing was changed. Run the same command again to see the plan anew."
                ) from failure
            if wait is None or failure.status not in TRY_AGAIN:
                raise
            say(f"{failure} Trying again in {wait:.0f} s.")
            time.sleep(wait)
    raise AssertionError("the last wait is None")


def _look_again(hub: Hub, bundle: Bundle, planned: Plan, commit: str, say: Say) -> None:
    """Check that the commit holds what was pushed: a Hub may leave files out without a word."""
    try:
        files = hub.state(planned.repo, commit).files
    except BigNASError as error:
        say(f"pushed, but not looked at again: {error}")
        return
    wrong = [c.path for c in compare(bundle.files, files) if c.kind != "same"]
    if wrong:
        raise IntegrityError(
            f"{hub.url(planned.repo, commit)}: holds other files than were pushed ({', '.join(wrong[:5])}). "
            "Look at .gitignore and .gitattributes there, and push again."
        )


@dataclass(frozen=True)
class _Head:
    """What is at a branch.

    Attributes:
        commit: at its head.
        files_match: whether that holds what was to be pushed.
    """

    commit: str
    files_match: bool


def _head(hub: Hub, bundle: Bundle, planned: Plan) -> _Head:
    """Look up what is at the branch now, and whether that is what was to be pushed."""
    try:
        state = hub.state(planned.repo, planned.branch)
    except BigNASError as error:
        raise NetworkError(
            f"{hub.url(planned.repo)}: the commit was answered with an error, and whether it was made cannot be seen "
            f"({error}) Run the same command again: it makes no second one."
        ) from error
    return _Head(state.commit, all(c.kind == "same" for c in compare(bundle.files, state.files)))
